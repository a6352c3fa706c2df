"""How the worker talks to Triton."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


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
