"""The table of cases, and how one is judged."""
from dataclasses import dataclass
from typing import Callable, Optional

from client import Client, Ended
from hello import TLS13, Hello

CASES = []
# Why cases are known to fail, where more than one is.
NO_ALERT = "rustls closes without an alert; RFC 8446 §6.2 has it send one (SHOULD)"
NOT_MISSING = "rustls says handshake_failure; RFC 8446 §9.2 has it say missing_extension"
# Over without a word about what was wrong.
CLOSED = {"closed", "close_notify", "reset"}


@dataclass
class Case:
    # tlsfuzzer's script that checks the same.
    script: str
    what: str
    # An alert's name, `closed`, `served`; alternatives between bars. `refused` is any alert or a
    # close, `any` whatever is not silence.
    expected: str
    run: Callable
    # Why it is known to fail.
    known: Optional[str] = None

    def permits(self, outcome):
        if outcome == "silence" or " " in outcome:
            return False
        permitted = set(self.expected.split("|"))
        if "any" in permitted or outcome in permitted:
            return True
        if "closed" in permitted and outcome in CLOSED:
            return True
        return "refused" in permitted and outcome not in {"served", "close_notify"}

    def outcome(self, port):
        client = Client(port)
        try:
            said = self.run(client)
            if said is None:
                client.end()
            return said
        except Ended as ended:
            return str(ended)
        except AssertionError as error:
            return f"not so: {error}"
        finally:
            client.close()


def case(script, what, expected, known=None):
    """Makes a function of a client that has connected a case. It returns what came of it, or
    nothing: then the connection's end is."""

    def add(run):
        CASES.append(Case(script, what, expected, run, known))
        return run

    return add


def hello(script, what, expected, change, version=TLS13, agreed=None, known=None):
    """A case whose ClientHello is the default one, changed; then everything goes on as usual."""

    def run(client):
        made = Hello(version)
        change(made)
        client.shake(made, agreed or version)
        return client.get()

    case(script, what, expected, known)(run)
