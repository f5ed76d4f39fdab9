"""The way to the server, step by step, so that the first thing that is wrong is the one that is named."""

import socket
import ssl
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx
from cryptography import x509

from clients.check.line import Line, fail, ok, warn
from clients.settings import Connection, SiteSettings, connection

TIMEOUT_S = 5.0
CLOCK_WARN_S, CLOCK_FAIL_S = 60, 300
"""Flower refuses messages whose time is more than 300 s off."""
EXPIRES_SOON_DAYS = 30
EXPIRED, NOT_YET = 10, 9
UNTRUSTED = (2, 7, 18, 19, 20, 21)
OTHER_NAME = (62, 64)
"""OpenSSL's X509_V_ERR codes."""


def named(site: SiteSettings) -> Line:
    """site.yaml says where the server is."""
    if site.server is None:
        return fail("site.yaml names no server", "add the block server: with address, ca and key")
    return ok(f"to {site.server.address}; nothing ever connects to this machine")


def address(site: SiteSettings) -> Line:
    """The server's name becomes an IP address."""
    server = connection(site)
    try:
        found = sorted({str(entry[4][0]) for entry in socket.getaddrinfo(server.host, server.port)})
    except socket.gaierror as error:
        return fail(
            f"the name {server.host} is not known here ({error.strerror})",
            "check server.address for a typing error, then ask your network team whether this machine may use DNS",
        )
    return ok(f"{server.host} is {', '.join(found)}" if found != [server.host] else f"{server.host}")


def port(site: SiteSettings) -> Line:
    """Somebody listens at the server's port, and no firewall is in between."""
    server = connection(site)
    try:
        socket.create_connection((server.host, server.port), TIMEOUT_S).close()
    except ConnectionRefusedError:
        return fail(f"{server.address} refuses connections", "ask the coordinator whether the server runs on this port")
    except TimeoutError:
        return fail(
            f"{server.address} does not answer within {TIMEOUT_S:g} s",
            f"ask your network team to allow outgoing TCP to {server.address}",
        )
    except OSError as error:
        return fail(f"{server.address} cannot be reached ({error.strerror})", "check this machine's network")
    return ok(f"{server.address} accepts connections")


def authority(site: SiteSettings) -> Line:
    """The certificate of the federation's authority, which the server's must be signed by."""
    path = connection(site).ca
    try:
        found = x509.load_pem_x509_certificates(path.read_bytes())
    except PermissionError:
        return fail(f"permission denied: {path} may not be read", f"chmod a+r {path}")
    except OSError as error:
        return fail(f"{path} cannot be read ({error.strerror})", "ask the coordinator for ca.crt, or correct server.ca")
    except ValueError:
        return fail(f"{path} holds no certificate", "ask the coordinator for ca.crt again")
    now, last = datetime.now(UTC), max(each.not_valid_after_utc for each in found)
    if now > last:
        return fail(f"{path} expired on {last:%Y-%m-%d}", "ask the coordinator for the current ca.crt")
    if now < (first := min(each.not_valid_before_utc for each in found)):
        return fail(f"{path} is valid from {first:%Y-%m-%d} only, or this clock is behind", "compare the line clock")
    return ok(f"{path} is valid until {last:%Y-%m-%d}")


def certificate(site: SiteSettings) -> Line:
    """The server proves with a certificate of the federation's authority, in date, that it has this name."""
    server = connection(site)
    try:
        with (
            socket.create_connection((server.host, server.port), TIMEOUT_S) as plain,
            _trust(server).wrap_socket(plain, server_hostname=server.host) as secured,
        ):
            shown = x509.load_der_x509_certificate(secured.getpeercert(binary_form=True) or b"")
    except ssl.SSLCertVerificationError as error:
        return _untrusted(server, error)
    except ssl.SSLError as error:
        return fail(
            f"{server.address} does not speak TLS ({error.reason or error})",
            "check the port in server.address, and that no proxy of your network opens the connection",
        )
    except OSError as error:
        return fail(f"{server.address} ends the connection in the TLS handshake ({error})", "ask the coordinator")
    left = shown.not_valid_after_utc - datetime.now(UTC)
    text = f"signed by the authority in {server.ca.name}, for {server.host}, until {shown.not_valid_after_utc:%Y-%m-%d}"
    if left.days < EXPIRES_SOON_DAYS:
        return warn(f"{text}: {left.days} days", "ask the coordinator to rotate the server's certificate")
    return ok(text)


def healthy(site: SiteSettings) -> Line:
    """The server behind the port is up."""
    server = connection(site)
    try:
        answer = httpx.get(f"https://{server.address}/health", verify=_trust(server), timeout=TIMEOUT_S)
    except httpx.HTTPError as error:
        return fail(f"no answer to /health ({error})", "ask the coordinator whether the server runs")
    if answer.status_code in (502, 503, 504):
        return fail("the proxy answers but Flower's SuperLink behind it does not", "ask the coordinator to start it")
    if not answer.is_success:
        return fail(
            f"/health answers {answer.status_code}: this is not the server of a federation", "check server.address"
        )
    return ok("the server is up")


def clock(site: SiteSettings) -> Line:
    """This machine's clock against the server's Date header. The certificate is not asked for: a clock that is far off
    makes every certificate look out of date, and this line says why."""
    server = connection(site)
    try:
        answer = httpx.get(f"https://{server.address}/health", verify=False, timeout=TIMEOUT_S)
        theirs = parsedate_to_datetime(answer.headers["date"])
    except (httpx.HTTPError, KeyError, ValueError) as error:
        return warn(
            f"the server does not tell its time ({error or type(error).__name__})", "compare the clocks by hand"
        )
    off = (datetime.now(UTC) - theirs).total_seconds()
    text = f"this clock is {abs(off):.0f} s {'ahead of' if off > 0 else 'behind'} the server's"
    if abs(off) > CLOCK_FAIL_S:
        return fail(f"{text}; Flower allows {CLOCK_FAIL_S} s", "set the clock: timedatectl set-ntp true")
    if abs(off) > CLOCK_WARN_S:
        return warn(f"{text}; Flower allows {CLOCK_FAIL_S} s", "set the clock: timedatectl set-ntp true")
    return ok(text)


def _trust(server: Connection) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(server.ca))


def _untrusted(server: Connection, error: ssl.SSLCertVerificationError) -> Line:
    if error.verify_code == EXPIRED:
        return fail(
            "the server's certificate has expired, or this clock is ahead",
            "compare the line clock; then ask the coordinator to rotate the certificate",
        )
    if error.verify_code == NOT_YET:
        return fail("the server's certificate is not valid yet, or this clock is behind", "compare the line clock")
    if error.verify_code in UNTRUSTED:
        return fail(
            f"the server's certificate is not signed by the authority in {server.ca}",
            "ask the coordinator for the current ca.crt; a proxy of your network that opens TLS looks like this too",
        )
    if error.verify_code in OTHER_NAME:
        return fail(
            f"the server's certificate is not for {server.host}",
            "write server.address as the certificate names it, or ask the coordinator to add this name",
        )
    return fail(f"the server's certificate is not trusted ({error.verify_message})", "ask the coordinator")
