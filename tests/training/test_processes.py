import json
import os
import signal
import socket
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import SingleDeviceSharding

from vqdit.training import fingerprint
from vqdit.training.checkpoint_reader import CheckpointReader
from vqdit.training.processes import any_process

MEMBER = """
import json, os, shutil, sys, time
import jax, jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding, PartitionSpec
jax.config.update('jax_num_cpu_devices', 2)
jax.distributed.initialize(sys.argv[1], 2, int(sys.argv[2]))
from vqdit.training import fingerprint
from vqdit.training.checkpoints import Checkpoints
from vqdit.training.interruption import Request, StopFlag
from vqdit.training.processes import any_process
from vqdit.training.workdir import Lock
mesh = jax.make_mesh((4,), ('data',), axis_types=(AxisType.Auto,))
sharding = NamedSharding(mesh, PartitionSpec('data'))
values = jnp.arange(40.0).reshape(8, 5)
tree = {'state': {'w': jax.make_array_from_callback((8, 5), sharding, lambda index: values[index])}}
wanted = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), tree)
answer = {'any': any_process(jax.process_index() == 1, False)}
workdir = sys.argv[3]
with Lock(workdir), StopFlag(workdir) as flag, Checkpoints(workdir + '/checkpoints') as checkpoints:
    for step in (1, 2):
        checkpoints.save(step, tree)
    checkpoints.wait()
    if jax.process_index() == 0:
        shutil.rmtree(checkpoints.folder / '2' / 'state')
    any_process(False)
    answer['restored'] = checkpoints.restore(wanted).step
    checkpoints.save(2, tree, wait=True)
    again = checkpoints.restore(wanted).trees
    answer['fingerprint'] = fingerprint.fingerprint(again)
    answer['whole'] = fingerprint.fingerprint([jnp.arange(3)])
    print('ready', flush=True)
    polls = 0
    while flag.poll() is not Request.STOP:
        polls += 1
        time.sleep(0.05)
answer['polls'] = polls
print('answer', json.dumps(answer), flush=True)
"""


def test_one_process_agrees_with_itself():
    assert any_process(True, False) == (True, False)


@pytest.mark.slow
def test_two_processes_save_restore_and_stop_together(tmp_path):
    with socket.socket() as free:
        free.bind(('localhost', 0))
        address = f'localhost:{free.getsockname()[1]}'
    command = [sys.executable, '-W', 'ignore', '-c', MEMBER, address]
    settings = {'env': {**os.environ, 'JAX_PLATFORMS': 'cpu'}, 'stdout': subprocess.PIPE, 'text': True}
    members = [subprocess.Popen([*command, str(index), str(tmp_path)], **settings) for index in range(2)]
    try:
        for member in members:
            assert 'ready\n' in iter(member.stdout.readline, '')
        members[1].send_signal(signal.SIGTERM)
        texts = [member.communicate(timeout=120)[0] for member in members]
    finally:
        for member in members:
            member.kill()
            member.communicate()
    answers = [json.loads(text.split('answer ')[1]) for text in texts]
    tree = {'state': {'w': jnp.arange(40.0).reshape(8, 5)}}
    sums = {path: list(pair) for path, pair in fingerprint.fingerprint(tree).items()}
    assert answers[0] == answers[1]
    assert answers[0] == {**answers[0], 'any': [True, False], 'restored': 1, 'fingerprint': sums}
    assert answers[0]['whole'] == {'0': list(fingerprint.fingerprint([jnp.arange(3)])['0'])}
    abstract = {
        'w': jax.ShapeDtypeStruct((8, 5), jnp.float32, sharding=SingleDeviceSharding(jax.devices()[0]))
    }
    step, trees, _ = CheckpointReader(tmp_path / 'checkpoints').restore({'state': abstract})
    assert step == 2 and bool((trees['state']['w'] == tree['state']['w']).all())
