"""Types of fields that messages of several modules have."""

from __future__ import annotations

from typing import Annotated

from ..limits import MESSAGE_BYTES_MAX, RECORD_BYTES_MAX
from ..schema import Size

Envelope = Annotated[bytes, Size(1, RECORD_BYTES_MAX)]
Bulk = Annotated[bytes, Size(0, MESSAGE_BYTES_MAX)]
