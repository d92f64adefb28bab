"""``ablate schema``: the JSON Schema of specs."""

from ablate.schema.outline import spec_schema, spec_schema_text

__all__ = ["spec_schema", "spec_schema_text"]
