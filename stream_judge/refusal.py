"""Why a broker lets no client in, in the words of the settings.

aiokafka tells its caller only that it could not connect; the reason goes to its log.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import Iterator
from contextlib import contextmanager

from aiokafka.errors import (
    IllegalSaslStateError,
    KafkaConnectionError,
    SaslAuthenticationFailed,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
    UnsupportedSaslMechanismError,
)

from stream_judge.kafka_oauth import TokenError
from stream_judge.settings import KafkaSettings


class _Reasons(logging.Filter):
    """Takes from aiokafka's log the errors that it met while it connected.

    Attributes:
        errors: In their order.
    """

    def __init__(self) -> None:
        super().__init__()
        self.errors: list[BaseException] = []

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the line stays in the log; what is told to the caller need not."""
        last = record.args[-1] if isinstance(record.args, tuple) and record.args else None
        if not (str(record.msg).startswith("Unable ") and isinstance(last, BaseException)):
            return True
        self.errors.append(last)
        return False


@contextmanager
def listening() -> Iterator[list[BaseException]]:
    """The errors that clients meet while they connect, as they come."""
    log, reasons = logging.getLogger("aiokafka"), _Reasons()
    log.addFilter(reasons)
    try:
        yield reasons.errors
    finally:
        log.removeFilter(reasons)


def message(settings: KafkaSettings, error: BaseException) -> str:
    """What an error met on the way in means, and which settings to look at."""
    if isinstance(error, (UnknownTopicOrPartitionError, TopicAuthorizationFailedError)):
        return "a topic is not there or may not be seen; `stream-judge doctor` says which"
    where = f"{settings.bootstrap_servers} by {settings.security_protocol}"
    return f"no broker lets us in at {where}: {_why(settings, error)}"


def _why(settings: KafkaSettings, error: BaseException) -> str:
    # A connection that was closed under a request keeps what closed it as its cause.
    cause = error.__cause__ or error
    if isinstance(error, TokenError):
        return error.message
    if isinstance(error, SaslAuthenticationFailed):
        return f"it refuses {_account(settings)}"
    if isinstance(error, UnsupportedSaslMechanismError):
        return f"it knows no {settings.sasl_mechanism} there; check kafka.sasl_mechanism"
    if isinstance(error, IllegalSaslStateError):
        return "it wants no SASL there; check kafka.security_protocol and the port"
    if isinstance(cause, ssl.SSLCertVerificationError):
        says = getattr(cause, "verify_message", cause)
        return f"its certificate is not trusted ({says}); check kafka.ssl_ca_file"
    if isinstance(cause, ssl.SSLError):
        says = getattr(cause, "reason", None) or cause
        return (
            f"TLS fails ({says}); check kafka.security_protocol and, if it asks for a certificate, "
            "kafka.ssl_cert_file"
        )
    if isinstance(error, KafkaConnectionError):
        return f"it hangs up; check {_hung_up(settings)}"
    # Some, such as a connection that was reset, have no text of their own.
    says = str(error) or type(error).__name__
    return f"{says}; check kafka.bootstrap_servers and kafka.security_protocol"


def _account(settings: KafkaSettings) -> str:
    if settings.sasl_mechanism == "OAUTHBEARER":
        return "the token; check the kafka.oauth_ settings"
    return (
        f"the account {settings.sasl_username}; check kafka.sasl_username and kafka.sasl_password"
    )


def _hung_up(settings: KafkaSettings) -> str:
    protocol = f"kafka.security_protocol {settings.security_protocol} and the port"
    if settings.uses_sasl and settings.sasl_mechanism == "OAUTHBEARER":
        # A refused token ends in a challenge that aiokafka does not answer.
        return f"the kafka.oauth_ settings (a token that it does not take), or {protocol}"
    return protocol
