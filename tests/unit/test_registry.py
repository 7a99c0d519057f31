import hashlib
import sys
from pathlib import Path

import pytest

from core import registry
from core.errors import PluginError
from core.objective import Objective
from core.reward import RewardSource, Sample
from tests.packages import ROOT


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    monkeypatch.delenv("ACCORDANT_PLUGINS", raising=False)
    yield
    for name in [n for n in sys.modules if n.partition(".")[0] in ("acme_align", "acme_sick", "acme_rival")]:
        del sys.modules[name]


@pytest.fixture
def acme(acme_site, monkeypatch):
    monkeypatch.syspath_prepend(acme_site)


@pytest.fixture
def broken(broken_site, monkeypatch):
    monkeypatch.syspath_prepend(broken_site)


def refused(kind: str, name: str, *words: str, **options: object) -> str:
    """The error's text; it must name all the words."""
    build = registry.build_objective if kind == "objective" else registry.build_reward
    with pytest.raises(PluginError) as caught:
        build({"name": name, **options})
    for word in words:
        assert word in str(caught.value), f"{word!r} is missing in: {caught.value}"
    return str(caught.value)


def test_the_built_ins_come_by_entry_points():
    names = {(e.kind, e.name, e.distribution) for e in registry.entries()}
    assert {("objective", "sft", "accordant"), ("objective", "dpo", "accordant"), ("reward", "length", "accordant")} <= names
    assert ("conf", "accordant", "accordant") in names


def test_a_third_party_is_found_and_built(acme):
    objective = registry.build_objective({"name": "ipo_pure", "tau": 0.5})
    assert type(objective).__module__ == "acme_align.ipo"
    assert objective.tau == 0.5
    source = registry.build_reward({"name": "tone", "limit": 2})
    assert isinstance(source, RewardSource)
    assert source.score([Sample("", "Thank you, thanks, please.")]) == [2.0]


def test_listing_imports_nothing(acme, broken):
    lines = {entry.name: registry.first_line(entry) for entry in registry.entries() if entry.kind != "conf"}
    assert lines["ipo_pure"] == "Identity preference optimization, from outside."
    assert lines["fine"] == "Works."
    assert lines["gone"] == "(no source found)"
    assert lines["bad_syntax"].startswith("(cannot be read")
    assert not [name for name in sys.modules if name.startswith(("acme_align", "acme_sick", "acme_rival"))]


def test_no_reward_is_none():
    assert registry.build_reward({"name": "none"}) is None


def test_an_unknown_name_says_the_nearest_all_names_and_to_reinstall(acme):
    text = refused(
        "objective", "ipo_pur", 'Did you mean "ipo_pure"?', "dpo (accordant)", "ipo_pure (acme-align)", "pip install -e ."
    )
    assert "tone" not in text  # a reward is no help to who wants an objective


def test_two_distributions_with_one_name(broken):
    refused("objective", "dpo", "accordant 0.1.0", "acme-rival 0.9", "plugins.prefer.dpo=acme-rival")


def test_a_preference_decides(broken):
    rival = registry.build_objective({"name": "dpo"}, {"dpo": "Acme_Rival"})
    assert type(rival).__module__ == "acme_rival.dpo"
    ours = registry.build_objective({"name": "dpo"}, {"dpo": "accordant"})
    assert type(ours).__module__ == "plugins.objectives.dpo"


def test_a_preference_for_one_that_does_not_offer_it(broken):
    with pytest.raises(PluginError, match=r"acme-sick.*offered by accordant 0.1.0 and acme-rival 0.9 only"):
        registry.find("objective", "dpo", {"dpo": "acme-sick"})


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("needs_pkg", ["ModuleNotFoundError", "pip install surely_not_installed", "needs_pkg.py:1"]),
        ("bad_name", ["ImportError", "no_such_name", "bad_name.py:1"]),
        ("bad_syntax", ["SyntaxError", "bad_syntax.py:2"]),
        ("exits", ["SystemExit: 3", "exits.py:2"]),
        ("raises", ["RuntimeError: no licence found", "raises.py:2"]),
        ("gone", ["acme_sick.gone", "acme-sick itself", "force-reinstall"]),
        ("old_api", ["plugin API 0", "speaks API 1", "pip install -U acme-sick"]),
        ("new_api", ["plugin API 99", "speaks API 1", "pip install -U accordant"]),
        ("no_class", ["acme_sick.no_class:make", "RewardSource"]),
        ("no_attribute", ["is missing", "RewardSource"]),
        ("no_colon", ['"acme_sick.fine" names no class']),
    ],
)
def test_a_broken_plugin_says_who_what_and_where(broken, name, words):
    refused("reward", name, "acme-sick 0.9", f'"{name}"', *words)


def test_the_original_error_is_kept_as_the_cause(broken):
    with pytest.raises(PluginError) as caught:
        registry.build_reward({"name": "raises"})
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_a_broken_neighbour_disturbs_nobody(broken):
    assert registry.build_reward({"name": "fine"}) is not None
    assert isinstance(registry.build_objective({"name": "sft"}), Objective)


def test_keyboard_interrupt_in_a_plugin_is_not_its_fault(broken, monkeypatch):
    def interrupt(name):
        raise KeyboardInterrupt

    monkeypatch.setattr("core.registry.importlib.import_module", interrupt)
    with pytest.raises(KeyboardInterrupt):
        registry.build_reward({"name": "fine"})


def test_an_option_that_the_constructor_lacks():
    refused("objective", "dpo", "objective.betta", 'Did you mean "beta"?', "accordant 0.1.0", "beta=0.1", betta=1)


def test_a_required_option(broken):
    refused("reward", "demanding", "needs reward.words", "acme-sick", "words (required)", "limit=3")
    refused("reward", "demanding", "needs reward.words", "null", words=None)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"words": "thank"}, ["reward.words is 'thank'", "a list (each item: a text)"]),
        ({"words": [1]}, ["reward.words is [1]"]),
        ({"words": [], "limit": "three"}, ["reward.limit is 'three'", "a whole number"]),
        ({"words": [], "limit": True}, ["reward.limit is True", "a whole number"]),
        ({"words": [], "limit": 2.5}, ["reward.limit is 2.5", "a whole number"]),
        ({"words": [], "mode": 3}, ["reward.mode is 3", "a text or null"]),
    ],
)
def test_a_value_of_the_wrong_kind(broken, options, words):
    refused("reward", "demanding", "acme-sick", *words, **options)


def test_values_that_fit(broken):
    assert registry.build_reward({"name": "demanding", "words": ["a"], "limit": 1, "mode": None}) is not None
    assert registry.build_reward({"name": "length", "target": 3, "scale": 2}, {"length": "accordant"})  # 2 is a number


def test_a_fixed_choice():
    refused("objective", "dpo", "objective.loss is 'sigmod'", "sigmoid, ipo, hinge", loss="sigmod")


def test_a_value_error_of_a_constructor_is_the_users(acme):
    refused("objective", "ipo_pure", "acme-align 1.2.3", "tau is -1", tau=-1.0)


def test_the_switch_off_leaves_the_built_ins(acme, broken, monkeypatch):
    monkeypatch.setenv("ACCORDANT_PLUGINS", "off")
    assert {entry.distribution for entry in registry.entries()} == {"accordant"}
    assert isinstance(registry.build_objective({"name": "dpo"}), Objective)
    refused("objective", "ipo_pure", "ACCORDANT_PLUGINS=off")


def test_the_switch_takes_distributions(acme, broken, monkeypatch):
    monkeypatch.setenv("ACCORDANT_PLUGINS", "Acme_Align, other")
    assert {entry.distribution for entry in registry.entries()} == {"accordant", "acme-align"}


def test_the_supplier_is_recorded(acme, acme_site):
    source = acme_site / "acme_align" / "ipo.py"
    assert registry.supplier("objective", "ipo_pure") == {
        "kind": "objective",
        "name": "ipo_pure",
        "distribution": "acme-align",
        "version": "1.2.3",
        "api": 1,
        "file_sha256": hashlib.sha256(source.read_bytes()).hexdigest(),
    }


def test_a_checkout_that_is_not_installed_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(registry.importlib.metadata, "entry_points", lambda group: ())
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])  # another path, so that no earlier scan is used
    with pytest.raises(PluginError, match="pip install -e"):
        registry.entries()


def test_source_files_are_found_without_an_import():
    entry = registry.find("objective", "sft")
    assert registry.source_file(entry) == ROOT / "plugins" / "objectives" / "sft.py"
    nowhere = registry.Entry("reward", "x", "no_such_top.module:X", "acme", "1")
    assert registry.source_file(nowhere) is None
    assert registry.folder_of(nowhere) is None


def test_our_conf_is_found():
    (entry,) = [e for e in registry.entries("conf") if e.distribution == "accordant"]
    assert registry.folder_of(entry) == Path(ROOT / "conf")
