"""``ablate schema``: the JSON Schema of specs, and of search spaces."""

from ablate.schema.outline import spec_schema, spec_schema_text
from ablate.schema.spaces import space_schema, space_schema_text

__all__ = ["space_schema", "space_schema_text", "spec_schema", "spec_schema_text"]
