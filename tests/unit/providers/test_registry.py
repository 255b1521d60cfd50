from importlib.metadata import EntryPoint

import pytest
from pydantic import BaseModel, ConfigDict, Field

from kfp_operator.errors import InvalidSpec
from kfp_operator.providers import registry
from kfp_operator.providers.local import LocalParameters, LocalProviderType


class Nested(BaseModel):
    model_config = ConfigDict(extra="forbid")
    size: int = 0


class Parameters(BaseModel):
    model_config = ConfigDict(extra="forbid", populate_by_name=True)
    endpoint_url: str = Field(alias="endpointUrl")
    retries: int = 3
    pools: list[Nested] = []


class OutsideType:
    """A type whose object is the entry point itself, as a class."""

    parameters = Parameters
    in_cluster = True


BEACON = EntryPoint("beacon", f"{__name__}:OutsideType", registry.GROUP)
LOCAL = EntryPoint("local", "kfp_operator.providers.local:LocalProviderType", registry.GROUP)


def parse(parameters: dict[str, object]) -> str:
    with pytest.raises(InvalidSpec) as caught:
        registry.parse_parameters(OutsideType(), parameters)  # type: ignore[arg-type]  # it opens nothing here
    assert caught.value.reason == "InvalidParameters"
    return str(caught.value)


def test_the_package_itself_offers_the_type_local() -> None:
    assert isinstance(registry.find("local", in_cluster=False), LocalProviderType)


def test_a_type_of_another_package_is_found_by_its_entry_point() -> None:
    assert isinstance(registry.find("beacon", in_cluster=True, installed=[LOCAL, BEACON]), OutsideType)


def test_an_unknown_type_is_refused_with_those_that_exist_and_the_nearest() -> None:
    with pytest.raises(InvalidSpec) as caught:
        registry.find("locale", in_cluster=False, installed=[LOCAL, BEACON])
    assert str(caught.value) == "spec.type: 'locale' is not a provider type that is installed here (beacon, local), did you mean local?"


def test_local_is_refused_in_a_cluster_and_the_message_names_the_setting() -> None:
    with pytest.raises(InvalidSpec, match=r"setting providers\.enabled") as caught:
        registry.find("local", in_cluster=True, installed=[LOCAL])
    assert caught.value.reason == "ProviderTypeNotEnabled"


def test_local_may_run_in_a_cluster_that_names_it() -> None:
    assert registry.find("local", enabled=["local"], in_cluster=True, installed=[LOCAL]) is not None


@pytest.mark.parametrize("value", ["no_such_package.at_all:Type", f"{__name__}:NoSuchName"])
def test_a_type_that_cannot_be_imported_is_told_with_its_package(value: str) -> None:
    with pytest.raises(InvalidSpec, match=r"type beacon of package .* cannot be imported: .*(no_such_package|NoSuchName)"):
        registry.find("beacon", in_cluster=False, installed=[EntryPoint("beacon", value, registry.GROUP)])


def test_good_parameters_become_the_types_own_model() -> None:
    parsed = registry.parse_parameters(OutsideType(), {"endpointUrl": "http://x", "retries": 5})  # type: ignore[arg-type]
    assert parsed == Parameters(endpointUrl="http://x", retries=5)


def test_an_unknown_parameter_is_told_with_the_accepted_ones_and_the_nearest() -> None:
    message = parse({"endpointUrl": "http://x", "endpointURI": "y"})
    assert message == (
        "spec.parameters: endpointURI: there is no such parameter (there are endpointUrl, pools, retries), did you mean endpointUrl?"
    )


def test_every_wrong_parameter_is_named_with_its_path() -> None:
    message = parse({"retries": "many", "pools": [{"size": 1}, {"size": "x", "colour": 1}]})
    assert "endpointUrl: field required" in message
    assert "retries: input should be a valid integer" in message
    assert "pools[1].size: input should be a valid integer" in message
    assert "pools[1].colour: there is no such parameter" in message


def test_local_explains_a_reserved_variable() -> None:
    with pytest.raises(InvalidSpec, match=r"environment: HOME is set by the provider for each run"):
        registry.parse_parameters(LocalProviderType(), {"environment": {"HOME": "/root"}})


def test_local_needs_no_parameters() -> None:
    assert registry.parse_parameters(LocalProviderType(), {}) == LocalParameters()
