"""What the requests of all protocols are made of: models that let nothing pass unseen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AliasChoices, BaseModel, BeforeValidator, ConfigDict, GetJsonSchemaHandler

if TYPE_CHECKING:
    from pydantic.json_schema import JsonSchemaValue
    from pydantic_core import CoreSchema

LONGEST_STOP_STRING = 1000


class StrictModel(BaseModel):
    """A part of a request: no type is coerced, no unknown field passes."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """The model's schema with the further names of its fields, which Pydantic takes but does not tell of."""
        schema = handler(core_schema)
        properties = handler.resolve_ref_schema(schema).get("properties", {})
        for field in cls.model_fields.values():
            if isinstance(field.validation_alias, AliasChoices):
                first, *others = (name for name in field.validation_alias.choices if isinstance(name, str))
                for other in others:
                    properties[other] = {**properties[first], "title": other, "description": f"The same as `{first}`."}
        return schema


def _no_number(value: Any) -> Any:
    """To Python 0 is equal to False, but it is no JSON boolean."""
    if isinstance(value, bool) or value is None:
        return value
    raise ValueError("it should be false")


Off = Annotated[Literal[False] | None, BeforeValidator(_no_number)]
"""What can be said to be off, and not be turned on."""


def refused(reason: str) -> BeforeValidator:
    """Marks a field that is known and cannot be honoured: any value but null is refused for this reason."""

    def refuse(value: Any) -> None:
        if value is not None:
            raise ValueError(reason)

    return BeforeValidator(refuse)
