"""Settings of the host that must stand before JAX starts; on a CPU they decide a factor of 2 to 5 in speed."""

import atexit
import ctypes
import os
import shutil
import sys
import tempfile

import jax

# glibc mallopt parameters (malloc.h).
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8


def prepare_host(cpu_devices: int = 0) -> str:
    """Sets the allocator and the number of virtual CPU devices; returns a line that says what was done.

    XLA's CPU client frees and maps its large buffers at every step; glibc is told to keep them. As many virtual
    devices as cores keep all cores busy where XLA's convolutions leave some idle. XLA is told to optimise less, and to
    use its older emitters where it has them, which compiles in two thirds of the time and steps at least as fast.

    Args:
        cpu_devices: virtual CPU devices, 0 for one a core; accelerators are not affected.
    """
    if _accelerator_expected():
        return 'accelerator asked for: the settings of the host stay as they are'
    count = cpu_devices or cores()
    try:
        jax.config.update('jax_num_cpu_devices', count)
    except RuntimeError:
        return 'JAX runs already: the settings of the host stay as they are'
    if count > 1:
        # XLA's thread pool: a program whose collectives wait on every thread would wait for ever. One device has no
        # collectives, and is a tenth faster with a thread a core.
        os.environ.setdefault('NPROC', str(max(16, 8 * count)))
    _compile_faster()
    kept = _keep_freed_memory()
    return f'CPU: {count} virtual device{"s" * (count > 1)}; freed memory {"kept" if kept else "returned"} by malloc'


def cores() -> int:
    """The CPU cores that this process may use."""
    return len(os.sched_getaffinity(0))


def _accelerator_expected() -> bool:
    platforms = os.environ.get('JAX_PLATFORMS', '')
    if platforms:
        return platforms != 'cpu'
    return os.path.exists('/dev/nvidia0') or os.path.exists('/dev/accel0') or os.path.exists('/dev/vfio/0')


def _compile_faster() -> None:
    settings = {'xla_backend_optimization_level': '1'}
    if jax.__version_info__ < (0, 11):  # Later ones lack it, and a flag that XLA does not know ends the process.
        settings['xla_cpu_use_fusion_emitters'] = 'false'
    flags = os.environ.get('XLA_FLAGS', '')
    added = [f'--{name}={value}' for name, value in settings.items() if name not in flags]
    os.environ['XLA_FLAGS'] = ' '.join([flags, *added]).strip()


def _keep_freed_memory() -> bool:
    if sys.platform != 'linux':
        return False
    try:
        mallopt = ctypes.CDLL('libc.so.6').mallopt
    except (OSError, AttributeError):
        return False
    settings = [(_MMAP_MAX, 0), (_TRIM_THRESHOLD, 2**31 - 1), (_ARENA_MAX, 1)]
    return all(mallopt(parameter, value) == 1 for parameter, value in settings)


def join_processes() -> None:
    """Joins the other processes of a run where there are any: SLURM, Open MPI, Kubernetes and TPU slices are detected
    by JAX itself. Call it before anything asks for devices.
    """
    try:
        jax.distributed.initialize()
    except ValueError:  # No cluster: a run of one process.
        return


def keep_compiled_programs() -> None:
    """Lets later runs on an accelerator find what this one compiles, in the user's cache folder.

    The programs of a CPU may not suit another machine that shares the folder: they are kept until this process ends, so
    that the evaluation finds what the training sampled with. JAX_COMPILATION_CACHE_DIR names another place.
    """
    if jax.config.values['jax_compilation_cache_dir']:
        return
    if _accelerator_expected():
        caches = os.environ.get('XDG_CACHE_HOME') or os.path.expanduser('~/.cache')
        folder = os.path.join(caches, 'vqdit', 'compiled')
    else:
        folder = tempfile.mkdtemp(prefix='vqdit-compiled-')
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
    jax.config.update('jax_compilation_cache_dir', folder)


def device_line() -> str:
    """What this run computes on, in words."""
    devices = jax.devices()
    line = f'{len(devices)} {devices[0].platform.upper()} device{"s" * (len(devices) > 1)} ({devices[0].device_kind})'
    if jax.process_count() > 1:
        line += f' over {jax.process_count()} processes'
    return line
