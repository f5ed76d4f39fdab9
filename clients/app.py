"""The ClientApp: answers the server and keeps everything else at the hospital, its error messages included."""

import logging
from collections.abc import Callable

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from clients.evaluate import evaluate_round
from clients.journal import recorded
from clients.secure import admit_unmasked, secure_step
from clients.site import open_site, site_name, site_role
from clients.train import Observer, train_round
from fed_fsad import __version__
from fed_fsad.errors import (
    BudgetSpent,
    CheckpointError,
    ConfigError,
    DataError,
    Diverged,
    LedgerDamaged,
    PolicyRefusal,
)
from fed_fsad.messages import Instruction, MalformedMessage, Reply
from fed_fsad.secagg.wire import ACTION

log = logging.getLogger("fed_fsad.site")


def build_app(observer: Observer) -> ClientApp:
    """A ClientApp that tells `observer`, on its own machine, how far it is."""
    app = ClientApp()

    @app.query()
    def query(message: Message, context: Context) -> Message:
        """Who this is; no image is opened, so that the answer comes at once however many there are."""

        def told() -> Reply:
            return Reply(site_name(context), __version__, role=site_role(context))

        return Message(_safely(context, told), reply_to=message)

    @app.train()
    def train(message: Message, context: Context) -> Message:
        return Message(answer_unmasked(context, message.content, observer), reply_to=message)

    @app.train(ACTION)
    def secure(message: Message, context: Context) -> Message:
        return Message(answer_masked(context, message.content, observer), reply_to=message)

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        return Message(answer_evaluation(context, message.content), reply_to=message)

    return app


def answer_round(context: Context, content: RecordDict, observer: Observer) -> RecordDict:
    """What a round makes leave, masked or not; a real site keeps the story of it."""

    def trained() -> Reply:
        return train_round(open_site(context), Instruction.unpack(content), observer)

    return recorded(context, content, lambda: _safely(context, trained))


def answer_unmasked(context: Context, content: RecordDict, observer: Observer) -> RecordDict:
    """What leaves when the server asks for a round as it is, which a policy may forbid."""

    def trained() -> Reply:
        site = open_site(context)
        admit_unmasked(site.policy)
        return train_round(site, Instruction.unpack(content), observer)

    return recorded(context, content, lambda: _safely(context, trained))


def answer_masked(context: Context, content: RecordDict, observer: Observer) -> RecordDict:
    """What leaves when the server asks for one step of secure aggregation."""

    def stepped() -> Reply:
        return secure_step(open_site(context), content, observer)

    return recorded(context, content, lambda: _safely(context, stepped))


def answer_evaluation(context: Context, content: RecordDict) -> RecordDict:
    """What leaves when the server asks for figures only."""

    def scored() -> Reply:
        return evaluate_round(open_site(context), Instruction.unpack(content))

    return recorded(context, content, lambda: _safely(context, scored))


def _safely(context: Context, work: Callable[[], Reply]) -> RecordDict:
    """What `work` answers, or a code that names the trouble; the whole story stays in the site's own log.

    Exceptions carry paths, names and values of private data: none of their text may reach the server.
    """
    name = "unknown"

    def failed(status: str, reason: str) -> RecordDict:
        return Reply(name, __version__, status, reason).pack()

    try:
        name = site_name(context)
        return work().pack()
    except BudgetSpent as error:
        log.warning("%s: %s", name, error)
        return failed("budget_spent", "its privacy budget is spent")
    except PolicyRefusal as error:
        log.warning("%s refused: %s", name, error)
        return failed("refused", f"its policy refuses ({error.code.replace('_', ' ')})")
    except LedgerDamaged as error:
        log.error("%s: %s", name, error)
        return failed("error", "its privacy ledger is damaged, so nothing was trained; the site's own log says where")
    except Diverged as error:
        log.error("%s: %s", name, error)
        return failed("error", "its training diverged: the loss is no finite number; lower the learning rate")
    except CheckpointError as error:
        log.error("%s: %s", name, error)
        return failed("error", "the parts it trains for itself cannot be used; the site's own log says why")
    except (DataError, ConfigError) as error:
        log.error("%s: %s", name, error)
        what = "images" if isinstance(error, DataError) else "settings"
        return failed("error", f"its {what} cannot be used; the site's own log says why")
    except MalformedMessage as error:
        log.error("%s: %s", name, error)
        return failed("error", "it cannot read the server's message; compare the versions")
    except Exception:
        log.exception("%s: unexpected error", name)
        return failed("error", "an unexpected error; the site's own log tells it")


app = build_app(lambda event: None)
