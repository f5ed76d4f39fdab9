"""What guards the patients: the policy, the budget that is left, and the site's key."""

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_ssh_private_key

from clients.check.line import Line, fail, ok, warn
from clients.settings import SiteSettings, connection
from fed_fsad import methods
from fed_fsad.errors import LedgerDamaged
from fed_fsad.privacy.account import LEDGER, spent_so_far
from fed_fsad.privacy.accounting import printed
from fed_fsad.privacy.policy import load_policy

LITTLE_LEFT, SPENT = 0.1, 1e-3
"""Parts of the budget."""
KNOWN_IN_A_RUN = "whether a server asks for more privacy is known in a run only (site preview --config)"


def policy(site: SiteSettings) -> Line:
    """policy.yaml is valid and names methods and parts that exist."""
    own = load_policy(site.policy)
    allowed = own.methods if own.methods is not None else dict.fromkeys(methods.names(), ("every part",))
    for name in allowed:
        if name not in methods.names():
            return fail(f"the policy allows {name!r}, which is no method", f"choose from {', '.join(methods.names())}")
    if site.role == "predict-only":
        return ok(
            f"nothing is trained; figures of the site's own evaluation {'leave' if own.release_metrics else 'stay'}"
        )
    parts = "; ".join(f"{name}: {', '.join(parts)}" for name, parts in sorted(allowed.items()))
    if own.privacy == "off":
        return ok(f"privacy: off, updates leave without noise; may be trained: {parts}")
    return ok(f"privacy per {own.unit}, epsilon {own.epsilon:g} in all, delta {own.delta:g}; may be trained: {parts}")


def budget(site: SiteSettings) -> Line:
    """The ledger can be believed, and something of the budget is left."""
    own = load_policy(site.policy)
    if own.privacy == "off" and not (site.state / LEDGER).exists():
        return ok(f"no budget: the policy asks for no privacy noise; {KNOWN_IN_A_RUN}")
    try:
        spent = spent_so_far(site.state)
    except LedgerDamaged as error:
        return fail(str(error), "restore the state folder from a backup; a new ledger would forget what was spent")
    if own.privacy == "off":
        return ok(f"ε = {printed(spent)} spent under what servers asked for; the policy sets no budget")
    left = round(max(own.epsilon - spent, 0.0), 4)
    text = f"ε = {printed(spent)} of {own.epsilon:g} spent, {left:.3g} left; {KNOWN_IN_A_RUN}"
    if left < SPENT * own.epsilon:
        return fail(text, "nothing more can be trained; only a larger epsilon, a weaker guarantee, would change that")
    if left < LITTLE_LEFT * own.epsilon:
        return warn(text, "this may not be enough for another run")
    return ok(text)


def node_key(site: SiteSettings) -> Line:
    """The private key is there, is of Flower's kind, and nobody else may read it."""
    path = connection(site).key
    try:
        content, mode = path.read_bytes(), path.stat().st_mode & 0o777
        key = load_ssh_private_key(content, None)
    except FileNotFoundError:
        return fail(f"there is no key {path}", "make one with fed-fsad site keygen, and send the .pub file only")
    except PermissionError:
        return fail(f"permission denied: {path} may not be read", f"give the user of this program {path}: chown")
    except OSError as error:
        return fail(f"{path} cannot be read ({error.strerror})", "check the drive")
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return fail(f"{path} holds no private key without a passphrase", "take the node.key of this site's kit")
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        return fail(f"{path} is no ECDSA key", "make one with fed-fsad site keygen")
    if mode & 0o077:
        return fail(f"others may read {path} (mode {mode:04o})", f"chmod 600 {path}")
    return ok(f"{path}, mode {mode:04o}")
