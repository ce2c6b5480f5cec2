"""Which renderer is chosen, and what a person is told where none works."""

import importlib

import pytest

from shared.envs import gl
from shared.errors import UserError

NO_EGL_DRIVER = "/nonexistent.json"  # libglvnd then finds no vendor's EGL


def test_check_names_the_renderer(python, renderer):
    answer = python("shared.envs.gl", module=True)
    assert answer.returncode == 0 and answer.stdout.startswith("renderer "), answer.stderr


def test_without_a_library_one_message_names_the_packages_and_the_status_is_2(python):
    answer = python("shared.envs.gl", module=True, MUJOCO_GL=None, __EGL_VENDOR_LIBRARY_FILENAMES=NO_EGL_DRIVER)
    if answer.returncode == 0:
        assert "osmesa" in answer.stdout  # this machine has the second choice
        return
    assert answer.returncode == 2
    for word in ("egl:", "osmesa:", "apt-get install libegl1 libgl1-mesa-dri", "libosmesa6", "conda-forge", "mesalib"):
        assert word in answer.stderr
    assert "Traceback" not in answer.stderr


def test_make_env_gives_the_same_message(python):
    code = (
        "from shared.envs.suite import make_env\n"
        "from shared.errors import cli\n"
        "sizes = {'size': 64, 'camera': 0, 'action_repeat': 2, 'time_limit_env_steps': 1000}\n"
        "raise SystemExit(cli(lambda arguments: make_env('walker_walk', **sizes) and 0)([]))"
    )
    answer = python(code, MUJOCO_GL="egl", __EGL_VENDOR_LIBRARY_FILENAMES=NO_EGL_DRIVER)
    assert answer.returncode == 2 and "libegl1" in answer.stderr and "Traceback" not in answer.stderr


@pytest.mark.parametrize(
    ("value", "message"),
    [("off", "MUJOCO_GL=off switches drawing off"), ("vulkan", "MUJOCO_GL=vulkan is no backend: expected egl, osmesa")],
)
def test_a_useless_mujoco_gl_is_told(python, value, message):
    answer = python("shared.envs.gl", module=True, MUJOCO_GL=value)
    assert answer.returncode == 2 and message in answer.stderr and "Traceback" not in answer.stderr


def test_a_device_that_does_not_exist_is_told(python, renderer):
    if not renderer.startswith("egl"):
        pytest.skip(f"device numbers are EGL's; this is {renderer}")
    answer = python("shared.envs.gl", module=True, MUJOCO_EGL_DEVICE_ID="99")
    assert answer.returncode == 2 and "MUJOCO_EGL_DEVICE_ID" in answer.stderr and "Traceback" not in answer.stderr


def test_egl_is_preferred_then_osmesa(monkeypatch):
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    monkeypatch.setitem(gl.PROBES, "egl", lambda: None)
    monkeypatch.setitem(gl.PROBES, "osmesa", lambda: None)
    assert gl._choose() == "egl"
    monkeypatch.setitem(gl.PROBES, "egl", lambda: "not here")
    assert gl._choose() == "osmesa"
    monkeypatch.setenv("MUJOCO_GL", "egl")  # obeyed, not replaced
    with pytest.raises(UserError, match="egl: not here"):
        gl._choose()


def test_the_egl_probe_agrees_with_dm_control_and_leaves_it_working(renderer):
    if renderer.startswith("egl"):
        assert gl._probe_egl() is None
        assert gl.check() == renderer


@pytest.fixture
def platform(renderer):
    """PyOpenGL's platform in this process, once dm_control has chosen EGL."""
    if gl.prepare() != "egl":
        pytest.skip("this machine draws with OSMesa: PyOpenGL's EGL is not in use")
    return importlib.import_module("OpenGL.platform").PLATFORM


def test_egl_needs_no_libgl_of_debian(platform, monkeypatch):
    """Debian's libegl1 brings no libGL; PyOpenGL asks it for errors of GL calls, and MuJoCo makes none through it."""
    monkeypatch.setattr(platform, "GL", None)
    gl._spare_libgl()
    assert platform.GL.glGetError() == 0


def test_a_libgl_that_is_there_stays(platform, monkeypatch):
    library = object()
    monkeypatch.setattr(platform, "GL", library)
    gl._spare_libgl()
    assert platform.GL is library
