"""Which OpenGL draws the pixels: chosen before dm_control is imported, because dm_control decides at import.

MUJOCO_GL is obeyed where set; otherwise EGL is tried, then OSMesa. `python -m shared.envs.gl` draws one picture and
names the renderer, or says with exit status 2 what to install. Read next: dmc.py.
"""

import ctypes
import importlib
import os
import sys

from shared.errors import UserError, cli

GL_RENDERER = 0x1F01
EGL_PLATFORM_DEVICE_EXT = 0x313F  # extension EGL_EXT_platform_device
SWITCHED_OFF = ("off", "disable", "disabled", "false", "0")  # what dm_control takes for "no renderer"
INSTALL = (
    "Install one of:\n"
    "  Debian, Ubuntu:  apt-get install libegl1 libgl1-mesa-dri   (EGL; an NVIDIA driver brings its own)\n"
    "                   apt-get install libosmesa6                (OSMesa; Debian 12, Ubuntu up to 24.04)\n"
    "  conda-forge:     conda install -c conda-forge libegl 'mesalib<25.1'   (later mesalib has no OSMesa)\n"
    "then `python -m shared.envs.gl` draws a test picture; MUJOCO_GL=egl or MUJOCO_GL=osmesa forces one."
)
SCENE = """<mujoco><worldbody><light pos="0 0 3"/><geom type="sphere" size="1" rgba="1 0 0 1"/>
<camera pos="0 0 4"/></worldbody></mujoco>"""


def _load(name: str, versions: tuple[int, ...]) -> ctypes.CDLL:
    """The library by the file names that PyOpenGL will try; OSError if none is there."""
    names = [f"lib{name}.so", *(f"lib{name}.so.{version}" for version in versions)]
    for file in names:
        try:
            return ctypes.CDLL(file, mode=ctypes.RTLD_GLOBAL)
        except OSError as error:
            reason = error
    raise OSError(f"no library {names[-1]} ({reason})")


def _probe_egl() -> str | None:
    """None if an EGL device can be opened without a display, else why not."""
    try:
        egl = _load("EGL", (1,))
    except OSError as error:
        return str(error)
    egl.eglGetProcAddress.restype = ctypes.c_void_p
    addresses = [egl.eglGetProcAddress(name) for name in (b"eglQueryDevicesEXT", b"eglGetPlatformDisplayEXT")]
    if None in addresses:
        return "this libEGL has no device extension (eglQueryDevicesEXT)"
    pointer = ctypes.c_void_p
    query = ctypes.CFUNCTYPE(ctypes.c_uint, ctypes.c_int, ctypes.POINTER(pointer), ctypes.POINTER(ctypes.c_int))
    platform = ctypes.CFUNCTYPE(pointer, ctypes.c_uint, pointer, pointer)
    devices, found = (pointer * 16)(), ctypes.c_int(0)
    if not query(addresses[0])(16, devices, ctypes.byref(found)) or found.value == 0:
        return "libEGL is there, but it finds no device: its driver is missing (libgl1-mesa-dri or the GPU's driver)"
    for device in devices[: found.value]:
        display = platform(addresses[1])(EGL_PLATFORM_DEVICE_EXT, device, None)
        if display and egl.eglInitialize(pointer(display), None, None):
            return None  # left open: dm_control is about to use it, and to end it would end it for everyone
    return f"libEGL finds {found.value} device(s), but none can be opened (driver or permission missing)"


def _probe_osmesa() -> str | None:
    """None if OSMesa is installed, else why not."""
    try:
        _load("OSMesa", (6, 8))
    except OSError as error:
        return str(error)
    return None


PROBES = {"egl": _probe_egl, "osmesa": _probe_osmesa}  # in order of preference


def _choose() -> str:
    """The value for MUJOCO_GL: the user's, else the first backend that answers."""
    wanted = os.environ.get("MUJOCO_GL", "").lower()
    if not wanted:
        return _first_that_answers(list(PROBES))
    if wanted in PROBES:
        return _first_that_answers([wanted])
    if wanted in SWITCHED_OFF:
        raise UserError(f"MUJOCO_GL={wanted} switches drawing off, but pixels are asked for; unset MUJOCO_GL")
    if wanted != "glfw":
        raise UserError(f"MUJOCO_GL={wanted} is no backend: expected egl, osmesa, or glfw (which needs a display)")
    return wanted


def _first_that_answers(names: list[str]) -> str:
    reasons = {}
    for name in names:
        reasons[name] = PROBES[name]()
        if reasons[name] is None:
            return name
    tried = "\n".join(f"  {name}: {reason}" for name, reason in reasons.items())
    raise UserError(f"no OpenGL library can draw the environment's pixels. Tried:\n{tried}\n{INSTALL}")


def cannot_draw(backend: str, error: Exception) -> UserError:
    """What to tell when a backend that was chosen fails."""
    return UserError(f"MUJOCO_GL={backend} cannot draw here: {type(error).__name__}: {error}\n{INSTALL}")


class _NoErrors:
    """Stands where PyOpenGL wants libGL: no GL call is made through it, so there is no error to report."""

    @staticmethod
    def glGetError() -> int:
        return 0


def _spare_libgl() -> None:
    """Let PyOpenGL's EGL start without libOpenGL and libGL, which Debian's libegl1 does not bring.

    MuJoCo draws through libEGL alone; PyOpenGL would only ask libGL for errors of calls that nobody makes here.
    """
    os.environ.setdefault("PYOPENGL_PLATFORM", "egl")
    platform = importlib.import_module("OpenGL.platform").PLATFORM
    if platform.GL is None:
        platform.GL = _NoErrors


def _driver(backend: str) -> str:
    """What draws, asked in a current context."""
    if backend == "egl":
        egl = _load("EGL", (1,))
        egl.eglGetProcAddress.restype = ctypes.c_void_p
        get_string = ctypes.CFUNCTYPE(ctypes.c_char_p, ctypes.c_uint)(egl.eglGetProcAddress(b"glGetString"))
        return (get_string(GL_RENDERER) or b"unknown").decode()
    opengl = importlib.import_module("OpenGL.GL")
    return opengl.glGetString(opengl.GL_RENDERER).decode()


def prepare() -> str:
    """Import dm_control's renderer with the chosen backend and return the backend's name; call before dm_control.

    MUJOCO_GL is set for this process and those it starts, so that all of them draw alike.
    Raises:
      UserError: no backend works, or the one that MUJOCO_GL names does not.
    """
    loaded = sys.modules.get("dm_control._render")
    if loaded is None:
        os.environ["MUJOCO_GL"] = _choose()
        # dm_control's drawing thread outlives the interpreter's pools under OSMesa ("cannot schedule new futures").
        os.environ.setdefault("DISABLE_RENDER_THREAD_OFFLOADING", "1")
        try:
            if os.environ["MUJOCO_GL"] == "egl":
                _spare_libgl()
            loaded = importlib.import_module("dm_control._render")
        except (ImportError, RuntimeError, AttributeError, TypeError, ctypes.ArgumentError) as error:
            raise cannot_draw(os.environ["MUJOCO_GL"], error) from error
    if loaded.BACKEND is None:
        raise UserError(f"dm_control found no OpenGL library when it was imported.\n{INSTALL}")
    return loaded.BACKEND


def check() -> str:
    """Draw a picture and name the backend and the driver, e.g. "egl: llvmpipe (LLVM 15.0.6, 256 bits)".

    Raises:
      UserError: nothing can be drawn.
    """
    backend = prepare()
    mujoco = importlib.import_module("dm_control.mujoco")
    physics = mujoco.Physics.from_xml_string(SCENE)
    try:
        image = physics.render(16, 16, camera_id=0)
        with physics.contexts.gl.make_current() as context:
            driver = context.call(_driver, backend)
    except Exception as error:  # OpenGL, EGL and MuJoCo each raise their own
        raise cannot_draw(backend, error) from error
    finally:
        physics.free()
    if image.min() == image.max():
        raise UserError(f"MUJOCO_GL={backend} ({driver}) draws an empty picture.\n{INSTALL}")
    return f"{backend}: {driver}"


@cli
def main(arguments: list[str]) -> int:
    if arguments:
        raise UserError(f"shared.envs.gl: unknown arguments {arguments}; it takes none")
    print(f"renderer {check()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
