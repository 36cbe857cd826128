"""The command that further processes of a job are started with."""

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from kd_lightning.apps.processes.children import command_of_job


def test_a_further_process_is_told_what_the_first_was(monkeypatch):
    """What stands for a value, too (it has one there), in the folder of the first, under the number of its job."""
    told = ["name='x_${seed}'", "paths.store='s_${hydra:job.num}'"]
    sources = [{"provider": "command-line", "path": "file:///own"}, {"provider": "main", "path": "pkg://conf"}]
    hydra = {"hydra.searchpath=[file:///more]", "hydra.sweep.dir=s", "hydra/launcher=joblib"}
    now = {
        "job": {"config_name": "train", "num": 3},
        "runtime": {"output_dir": "it's", "config_sources": sources},
        "overrides": {"task": told, "hydra": sorted(hydra)},
    }
    monkeypatch.setattr(HydraConfig, "get", lambda: OmegaConf.create(now))
    _, *first, where, of_own = command_of_job()[:5]
    assert [*first, where, of_own] == ["-m", "kd_lightning.train", "--config-dir", "/own"]
    rest = command_of_job()[5:]
    assert rest[:3] == [*told, "hydra.searchpath=[file:///more]"]
    parsed = {one.get_key_element(): one.value() for one in OverridesParser.create().parse_overrides(rest)}
    assert parsed["hydra.run.dir"] == "it's"
    assert parsed["hydra.job.num"] == 3
    assert parsed["hydra.mode"] == "RUN"
    assert not {"hydra.sweep.dir", "hydra/launcher"} & parsed.keys()
    now["job"]["num"] = "???"
    assert not [one for one in command_of_job() if one.startswith("hydra.job.num")], "of a single run"
