"""All settings: flags, environment (`STREAM_JUDGE_KAFKA__TOPIC=...`), a TOML file, defaults."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from stream_judge import setting_names
from stream_judge.errors import ConfigError
from stream_judge.images.options import ImageOptions
from stream_judge.resources import resource
from stream_judge.triton_options import TritonOptions

# Kafka's own pattern: another name would look like a topic that is missing.
TopicName = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,249}$")]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class KafkaSettings(_Section):
    """Broker, topics, consumer group and producer."""

    bootstrap_servers: str = Field(
        "127.0.0.1:9092", description="Brokers, host:port, separated by commas."
    )
    application: str = Field(
        "stream-judge",
        pattern=r"^[A-Za-z0-9._-]+$",
        description="Consumer group, and prefix of transactional ids.",
    )
    instance_id: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9._-]+$",
        max_length=249,
        description="Static membership: a name that no other worker of the group has, such as "
        "its StatefulSet pod's. A restart within session_timeout_s then moves no partitions; "
        "they wait for it.",
    )
    topic: TopicName = Field("product-updates", description="Source topic.")
    verdict_topic: TopicName = Field(
        "relevance-verdicts", description="Verdicts go here, and nothing else does."
    )
    dead_letter_topic: TopicName = Field(
        "relevance-dead-letters",
        description="Records that cannot be read, or met a defect, go here, and nothing else.",
    )
    publisher: Literal["transactional", "plain"] = Field(
        "transactional",
        description="How outcomes are published: exactly one each, or at least one each.",
    )
    on_missing_offset: Literal["earliest", "latest"] | None = Field(
        None,
        description="Where a partition begins whose offset is missing or out of range in a "
        "group that has others; unset, the worker stops and says so. Of the transactional "
        "publisher only.",
    )
    transaction_deadline_s: float = Field(
        5.0,
        gt=0,
        description="Until a transaction must be through, seconds; the broker ends it first if "
        "this is above transaction_timeout_s.",
    )
    transaction_timeout_s: float = Field(
        10.0,
        gt=0,
        description="Until the broker aborts the transaction of a dead worker, seconds; so "
        "long its readers are held back.",
    )
    isolation_level: Literal["read_committed", "read_uncommitted"] = Field(
        "read_committed", description="Whether records of aborted transactions are skipped."
    )
    session_timeout_s: float = Field(
        30.0, gt=1, description="Until a silent worker loses its partitions, seconds."
    )
    request_timeout_s: float = Field(
        30.0,
        gt=1,
        description="Until the broker must have confirmed an outcome (plain), a new producer "
        "stand after a failed transaction, or an answer be there (commands), seconds.",
    )
    max_record_bytes: int = Field(
        1_000_000, ge=32_000, description="Largest record that the output topics take, bytes."
    )
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="How the broker is talked to."
    )
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"] = Field(
        "SCRAM-SHA-512", description="For the SASL protocols."
    )
    sasl_username: str | None = Field(None, description="For PLAIN and SCRAM.")
    sasl_password: SecretStr | None = Field(None, description="For PLAIN and SCRAM.")
    oauth_token_file: Path | None = Field(
        None, description="For OAUTHBEARER: a file with the token, read for every connection."
    )
    oauth_token_url: str | None = Field(
        None,
        pattern=r"^(https://|http://(localhost|127\.0\.0\.1|\[::1\])[:/])",
        description="For OAUTHBEARER: endpoint of the client-credentials grant; https, or on "
        "loopback.",
    )
    oauth_client_id: str | None = Field(None, description="Goes with oauth_token_url.")
    oauth_client_secret: SecretStr | None = Field(None, description="Goes with oauth_token_url.")
    oauth_scope: str | None = Field(None, description="Goes with oauth_token_url, if asked for.")
    ssl_ca_file: Path | None = Field(None, description="Authority of the broker's certificate.")
    ssl_check_hostname: bool = Field(
        True, description="Whether the broker's certificate must name its host."
    )
    ssl_cert_file: Path | None = Field(
        None, description="Own certificate for mutual TLS, PEM with its chain."
    )
    ssl_key_file: Path | None = Field(None, description="Its key; by default in the same file.")
    ssl_key_password: SecretStr | None = Field(None, description="Password of that key.")

    @property
    def uses_sasl(self) -> bool:
        """Whether clients have to say who they are with SASL."""
        return self.security_protocol.startswith("SASL")

    @model_validator(mode="after")
    def _complete(self) -> Self:
        problem = self._circular() or self._missing() or self._idle()
        if problem is not None:
            raise ValueError(problem)
        return self

    def _circular(self) -> str | None:
        """Outcomes on the source topic would be judged again, for ever."""
        if len({self.topic, self.verdict_topic, self.dead_letter_topic}) < 3:
            return "topic, verdict_topic and dead_letter_topic have to be three topics"
        return None

    def _missing(self) -> str | None:
        grant = (self.oauth_token_url, self.oauth_client_id, self.oauth_client_secret)
        if self.uses_sasl and self.sasl_mechanism == "OAUTHBEARER":
            if self.oauth_token_file is not None and any(part is not None for part in grant):
                return "set oauth_token_file or oauth_token_url, not both"
            if self.oauth_token_file is None and any(part is None for part in grant):
                return (
                    "OAUTHBEARER needs either oauth_token_file, or oauth_token_url with "
                    "oauth_client_id and oauth_client_secret"
                )
        elif self.uses_sasl and (self.sasl_username is None or self.sasl_password is None):
            return f"{self.sasl_mechanism} needs sasl_username and sasl_password"
        if self.ssl_cert_file is None and (self.ssl_key_file or self.ssl_key_password):
            return "ssl_key_file and ssl_key_password go with ssl_cert_file"
        return None

    def _idle(self) -> str | None:
        """What is set and would do nothing: somebody believes in a protection that is not there."""
        given = {name for name in type(self).model_fields if getattr(self, name) is not None}
        oauth = {name for name in given if name.startswith("oauth_")}
        accounts = given & {"sasl_username", "sasl_password"}
        tls = given & {"ssl_ca_file", "ssl_cert_file"}
        if not self.uses_sasl and (idle := oauth | accounts):
            return f"{', '.join(sorted(idle))}: set security_protocol to SASL_SSL, or leave it out"
        if oauth and self.sasl_mechanism != "OAUTHBEARER":
            return f"{', '.join(sorted(oauth))}: set sasl_mechanism to OAUTHBEARER, or leave it out"
        if accounts and self.sasl_mechanism == "OAUTHBEARER":
            return f"{', '.join(sorted(accounts))}: not for OAUTHBEARER; leave it out"
        if tls and not self.security_protocol.endswith("SSL"):
            return f"{', '.join(sorted(tls))}: set security_protocol to SSL or SASL_SSL"
        if self.on_missing_offset is not None and self.publisher == "plain":
            return "on_missing_offset: set publisher to transactional, or leave it out"
        return None


class WindowSettings(_Section):
    """How much is under way at the same time."""

    max_records: int = Field(64, ge=1, description="Records in the window at most.")
    max_bytes: int = Field(
        32_000_000, ge=1_000_000, description="Bytes of their keys and values at most."
    )
    max_run: int = Field(100, ge=1, description="Outcomes published as one run at most.")
    linger_s: float = Field(
        0.05,
        ge=0,
        description="How long a finished run waits for its partition's next records, seconds.",
    )
    drain_timeout_s: float = Field(
        15.0,
        ge=0,
        description="How long work under way may take to finish at a stop, seconds; at a "
        "rebalance no longer than 0.3 times kafka.session_timeout_s.",
    )
    retry_first_s: float = Field(
        0.2, gt=0, description="First wait while something of the operator's is out, seconds."
    )
    retry_last_s: float = Field(
        10.0, gt=0, le=10, description="Longest such wait, seconds; not below retry_first_s."
    )
    stall_limit_s: float = Field(
        300.0,
        ge=10,
        description="How long there may be work, no outage and no outcome: half of it makes the "
        "worker unready, all of it ends it, seconds.",
    )
    dead_letter_limit: float = Field(
        0.5,
        gt=0,
        le=1,
        description="Share of dead letters among the last outcomes above which the worker stops; "
        "1 never stops it.",
    )
    dead_letter_sample: int = Field(
        200, ge=20, description="How many outcomes that share is taken of."
    )

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        first_s, last_s = self.retry_first_s, self.retry_last_s
        if first_s > last_s:
            raise ValueError(
                f"retry_first_s {first_s:g} is above retry_last_s {last_s:g}, the longest wait; "
                "lower the one or raise the other"
            )
        return self


class WebSettings(_Section):
    """The worker's own pages: /healthz, /readyz, /metrics."""

    bind: str = Field("127.0.0.1", description="Address; 0.0.0.0 for probes from elsewhere.")
    port: int = Field(6066, ge=0, le=65535, description="Port; 0 takes a free one.")


class LogSettings(_Section):
    """Logs on stderr."""

    level: Literal["debug", "info", "warning", "error"] = Field("info", description="From here on.")
    format: Literal["json", "console"] = Field("json", description="json: one line an event.")


class Settings(BaseSettings):
    """Everything a worker needs to know."""

    model_config = SettingsConfigDict(
        env_prefix=setting_names.PREFIX, env_nested_delimiter="__", frozen=True, extra="forbid"
    )

    kafka: KafkaSettings = Field(default_factory=KafkaSettings)
    triton: TritonOptions = Field(default_factory=TritonOptions)
    images: ImageOptions = Field(default_factory=ImageOptions)
    window: WindowSettings = Field(default_factory=WindowSettings)
    web: WebSettings = Field(default_factory=WebSettings)
    log: LogSettings = Field(default_factory=LogSettings)
    policies: Path = Field(
        default_factory=lambda: resource("policies"), description="Folder of policy files."
    )
    mapping: Path = Field(
        default_factory=lambda: resource("mappings/catalogue.yaml"),
        description="The mapping from your events.",
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags, then environment, then the TOML file."""
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)


def read_settings(
    path: Path | None = None, flags: Sequence[str] = (), **overrides: Any
) -> Settings:
    """The settings in force.

    Args:
        path: A TOML file; `None` reads none.
        flags: `section.name=value`, before environment and file; the last of a name counts.
            Values are written as in the environment.
        overrides: Sections or values that go before all else.

    Raises:
        ConfigError: Unknown names, values out of bounds, a secret among the flags, or a file
            that cannot be read.
    """
    given = _from_flags(flags) | overrides
    bound = type(
        "Settings",
        (Settings,),
        {
            "model_config": SettingsConfigDict(**{**Settings.model_config, "toml_file": path}),
            "__module__": __name__,
            "__doc__": Settings.__doc__,
        },
    )
    try:
        # pydantic-settings takes a file that is not there for an empty one.
        if path is not None and not path.is_file():
            raise ConfigError(f"settings file {path} is not there")
        settings: Settings = bound(**given)
    except ValidationError as exc:
        raise ConfigError(f"settings: {setting_names.refusal(exc, _kinds(), path)}") from exc
    except OSError as exc:
        raise ConfigError(f"settings file {path}: {exc.strerror}") from exc
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise ConfigError(f"settings file {path}: {exc}") from exc
    except ValueError as exc:
        # pydantic-settings says "error parsing" and the section only.
        raise ConfigError(f"settings: {exc}{setting_names.unreadable(_kinds())}") from exc
    return settings


def unknown_variables(environment: Mapping[str, str]) -> list[str]:
    """Variables that look like settings and are none: whoever set one means it.

    Those of a section that there is (`STREAM_JUDGE_KAFKA__TOPIK`) never get here, because
    `read_settings` refuses them. The others cannot be refused: Kubernetes gives every pod
    variables with the names of its services, and one of those may be called `stream-judge`.
    """
    known = {setting_names.variable(name) for name in _kinds()}
    return sorted(
        name
        for name in environment
        if name.upper().startswith(setting_names.PREFIX) and name.upper() not in known
    )


def meant_variable(name: str) -> str | None:
    """Which variable was meant by one that is no setting; None if it is like none of them."""
    return setting_names.similar_variable(name, _kinds())


def _from_flags(flags: Sequence[str]) -> dict[str, Any]:
    """Sections and values that flags set.

    Raises:
        ConfigError: Another form, no such setting, a secret, or a list that is no JSON.
    """
    known = _kinds()
    found: dict[str, Any] = {}
    for flag in flags:
        name, equals, value = flag.partition("=")
        kind = known.get(name)
        if not equals:
            raise ConfigError(f"--set {flag}: write section.name=value")
        if kind is None or hasattr(kind, "model_fields"):
            options = [other for other in known if not hasattr(known[other], "model_fields")]
            says = setting_names.no_such(name, options)
            raise ConfigError(f"--set {name}: {says}; write section.name=value")
        if SecretStr in get_args(kind):
            raise ConfigError(
                f"--set {name}: others can read a command line; set {setting_names.variable(name)}"
            )
        section, _, option = name.rpartition(".")
        target = found.setdefault(section, {}) if section else found
        is_json = setting_names.is_collection(kind)
        target[option] = _parsed(name, value) if is_json else value
    return found


def _parsed(name: str, value: str) -> Any:
    try:
        return json.loads(value)
    except ValueError as exc:
        raise ConfigError(f"--set {name}: {value!r}, and {setting_names.JSON_LIST}") from exc


def _kinds() -> dict[str, Any]:
    """The type of each setting, whole sections too, by its name: `kafka.topic`."""
    return setting_names.kinds(Settings)
