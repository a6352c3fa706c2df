"""How the worker talks to Triton."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from stream_judge.errors import ConfigError


class TritonOptions(BaseModel):
    """The model server, and how rows are grouped into requests."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str = Field("127.0.0.1:8001", description="Host and port of Triton's gRPC endpoint.")
    model: str = Field("relevance_judge", description="Name of the ensemble in the repository.")
    timeout_s: float = Field(30.0, gt=0, description="Deadline of one request, seconds.")
    batch_size: int = Field(16, ge=1, le=32, description="Rows in one request at most.")
    linger_s: float = Field(
        0.005, ge=0, le=1, description="How long a row waits for others of its policy, seconds."
    )
    max_requests: int = Field(4, ge=1, description="Requests under way at the same time.")
    tls: bool = Field(
        False, description="Whether to talk TLS; the server's certificate must name its host."
    )
    ca_file: Path | None = Field(
        None,
        description="Authority of the server's certificate, PEM; unset, the public ones that "
        "gRPC brings along.",
    )
    cert_file: Path | None = Field(
        None, description="Own certificate for mutual TLS, PEM with its chain; with key_file."
    )
    key_file: Path | None = Field(None, description="Its key, PEM without a password.")

    @model_validator(mode="after")
    def _protected(self) -> Self:
        """Refuse what would do nothing: somebody believes in a protection that is not there."""
        names = ("ca_file", "cert_file", "key_file")
        given = [name for name in names if getattr(self, name) is not None]
        if given and not self.tls:
            raise ValueError(f"{', '.join(given)}: set tls to true, or leave it out")
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("cert_file and key_file go together")
        return self


def tls_arguments(options: TritonOptions) -> dict[str, Any]:
    """Keyword arguments of tritonclient's gRPC client; none without TLS.

    Raises:
        ConfigError: A file cannot be read or is no PEM, or key and certificate do not fit.
    """
    if not options.tls:
        return {}
    # gRPC would only fail to connect, for ever, and say nothing of a file.
    try:
        context = ssl.create_default_context(cafile=options.ca_file)
    except (OSError, ssl.SSLError) as exc:
        raise ConfigError(f"triton.ca_file {options.ca_file}: {exc}") from exc
    if options.cert_file is not None:
        try:
            # Without a password OpenSSL would ask for one on the terminal.
            context.load_cert_chain(options.cert_file, options.key_file, "")
        except (OSError, ssl.SSLError, ValueError) as exc:
            raise ConfigError(
                f"triton.cert_file {options.cert_file}, triton.key_file {options.key_file}: {exc}"
            ) from exc
    return {
        "ssl": True,
        "root_certificates": options.ca_file,
        "certificate_chain": options.cert_file,
        "private_key": options.key_file,
    }
