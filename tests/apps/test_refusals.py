"""What a constructor refuses, as one line with the setting's whole name."""

import pytest

from kd_lightning.apps.fits.build import build
from kd_lightning.errors import UserError


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("linear_head", r"^system.head._target_ is 'linear_head', which cannot be imported \(.*linear_head"),
        (".linear_head", r"^system.head.*linear_head"),
        ("kd_lightning.heads.lineal_head", r"_target_ is .*, which cannot be imported; did you mean 'linear_head'\?$"),
        ("kd_lightning.heads.linear-head", r"_target_ is .*, which cannot be imported; did you mean 'linear_head'\?$"),
        ("broken_module.head", r"^system.head._target_ is 'broken_module.head', which cannot be imported \(.*boom"),
        (
            "unread_module.head",
            r"_target_ is 'unread_module.head', which cannot be imported \(.*SyntaxError",
        ),
    ],
)
def test_a_target_that_cannot_be_imported_is_one_line(tmp_path, monkeypatch, target, said):
    """A traceback through Hydra; or a nearest name in the place of the reason."""
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "broken_module.py").write_text("raise RuntimeError('boom')")
    (tmp_path / "unread_module.py").write_text("def head(:")
    with pytest.raises(UserError, match=said):
        build({"_target_": "kd_lightning.systems.Teacher", "head": {"_target_": target, "_partial_": True}}, "system")
