"""Checks the job files of `simmer launch` with the programs and schemas that they are written for.

    python3 -m venv venv && venv/bin/pip install pyyaml jsonschema kubernetes-validate skypilot
    venv/bin/python tests/reference/check_jobs.py --simmer target/release/simmer

Every job file is parsed, and every word of the command line and the recipe must come back. A script of Slurm is read by bash
(`bash -n`), and by Slurm's `sbatch --test-only` where there is one. Manifests are compared with the schemas of Kubernetes, an
MPIJob's pods with that of a pod; SkyPilot's task is compared with the schema of its own package.
"""

import argparse
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import jsonschema
import yaml

NAMES = ["my.toml", "it's my: own.toml", 'a "b" $HOME #c.toml', "é – 7b.toml", "no.toml"]
MORE = ["--set", "base.path=\"$HOME's\"", "--log-every", "5"]
ODD = '# \\ "quoted" \'it\'\'s\': é \u2028 { } [ ] & * ! | > % @ `\n'
KUBERNETES = "1.32"
checked = []


def fail(text):
    sys.exit(f"FAILED: {text}")


def launch(simmer, folder, name, args, more):
    job = folder / "job"
    job.unlink(missing_ok=True)
    command = [simmer, "launch", *args.split(), "--output", "job", name, *more]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode != 0:
        fail(f"{shlex.join(map(str, command))}: {done.stderr}")
    return job


def words_after(words, program):
    """The words after `simmer train` or `simmer launch`."""
    for at in range(len(words) - 1):
        if words[at : at + 2] == ["simmer", program]:
            return words[at + 2 :]
    fail(f"no `simmer {program}` in {words}")


def same(what, found, expected):
    if found != expected:
        fail(f"{what}: expected {expected!r}, found {found!r}")


def slurm(simmer, folder, name):
    job = launch(simmer, folder, name, "--slurm --ranks 8 --nodes 2 --cores 16 --memory 64G --time 24h --gpus h100:4", MORE)
    done = subprocess.run(["bash", "-n", job], capture_output=True, text=True)
    same(f"bash -n {name}", (done.returncode, done.stderr), (0, ""))
    text = job.read_text().replace("\\\n", " ")
    [line] = [line for line in text.splitlines() if line.startswith("srun ")]
    words = words_after(shlex.split(line.removesuffix("&")), "train")
    same(f"slurm: {name}", words, [name, *MORE, "--resume"])
    checked.append("slurm: bash -n, words")
    if shutil.which("sbatch"):
        subprocess.run(["sbatch", "--test-only", job], check=True)
        checked.append("slurm: sbatch --test-only")


def skypilot(simmer, folder, name, schemas):
    options = "--skypilot --image me/simmer-mpi:1 --storage s3://my-bucket --cores 8 --memory 64G"
    for more in ["--ranks 4", "--ranks 8 --nodes 2 --gpus H100:4"]:
        job = launch(simmer, folder, name, f"{options} {more}", MORE)
        task = yaml.safe_load(job.read_text())
        run = task["run"].splitlines()[-1]
        subprocess.run(["bash", "-n"], input=task["setup"] + task["run"], text=True, check=True)
        words = shlex.split(run)
        if "--nodes" in more:
            words = words_after(words, "train")
        else:
            words = words_after(words, "launch")[4:]
        same(f"skypilot: {name}", words, [name, *MORE, "--resume", "--out", f"/simmer-runs/{task['name']}"])
        checked.append("skypilot: YAML, bash -n, words")
        if schemas:
            schemas.validate(task, schemas.get_task_schema())
            schemas.validate(task["resources"], schemas.get_resources_schema())
            for mount in task["file_mounts"].values():
                schemas.validate(mount, schemas.get_storage_schema())
            checked.append("skypilot: schemas of the package")


def literal(command):
    """The words of a command after Kubernetes has replaced `$$`."""
    for word in command:
        if "$(" in word.replace("$$", ""):
            fail(f"Kubernetes would replace a variable: {word}")
    return [word.replace("$$", "$") for word in command]


def kubernetes(simmer, folder, name, mpi_job):
    options = "--kubernetes --image me/simmer-mpi:1 --storage my-claim --cores 4 --memory 64G --time 2d"
    for more in ["--ranks 4", "--ranks 8 --nodes 2 --gpus 4"]:
        job = launch(simmer, folder, name, f"{options} {more}", MORE)
        recipe, main = yaml.safe_load_all(job.read_text())
        same(f"kubernetes: {name}: recipe", recipe["data"]["recipe.toml"], (folder / name).read_text())
        out = f"runs/{Path(name).stem}"
        expected = ["/recipe/recipe.toml", *MORE, "--resume", "--out", out]
        if "--nodes" in more:
            replicas = main["spec"]["mpiReplicaSpecs"]
            command = replicas["Launcher"]["template"]["spec"]["containers"][0]["command"]
            words = words_after(literal(command), "train")
            pods = [replica["template"]["spec"] for replica in replicas.values()]
        else:
            words = words_after(literal(main["spec"]["template"]["spec"]["containers"][0]["command"]), "launch")[4:]
            pods = []
        same(f"kubernetes: {name}", words, expected)
        checked.append("kubernetes: YAML, words, recipe")
        if main["kind"] == "MPIJob" and mpi_job:
            jsonschema.validate(main, mpi_job)
            checked.append("kubernetes: schema of MPIJob")
        try:
            import kubernetes_validate
        except ImportError:
            continue
        validate(kubernetes_validate, recipe)
        if main["kind"] == "Job":
            validate(kubernetes_validate, main)
        for pod in pods:
            validate(kubernetes_validate, {"apiVersion": "v1", "kind": "Pod", "metadata": main["metadata"], "spec": pod})
        checked.append("kubernetes: schemas of kubernetes-validate")


def mpi_job_schema(file):
    """The schema of v2beta1, closed: what it does not name is wrong."""
    [version] = [version for version in yaml.safe_load(file.read_text())["spec"]["versions"] if version["name"] == "v2beta1"]
    schema = version["schema"]["openAPIV3Schema"]

    def close(part):
        if isinstance(part, dict):
            if "properties" in part and not part.get("x-kubernetes-preserve-unknown-fields"):
                part["additionalProperties"] = False
            for inner in part.values():
                close(inner)
        elif isinstance(part, list):
            for inner in part:
                close(inner)

    close(schema)
    schema["properties"]["metadata"] = {"type": "object"}
    return schema


def skypilot_schemas():
    try:
        from sky.utils import schemas
    except ImportError:
        return None
    schemas.validate = lambda value, schema: jsonschema.validate(value, schema, cls=jsonschema.Draft202012Validator)
    return schemas


def validate(kubernetes_validate, manifest):
    kubernetes_validate.validate(manifest, KUBERNETES, strict=True)
    if not re.fullmatch(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?", manifest["metadata"]["name"]):
        fail(f"not a name of Kubernetes: {manifest['metadata']['name']}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--simmer", required=True, help="program to test")
    parser.add_argument("--mpi-job", type=Path, help="the mpi-operator's definition of MPIJob, manifests/base/kubeflow.org_mpijobs.yaml")
    options = parser.parse_args()
    simmer = Path(options.simmer).resolve()
    schemas = skypilot_schemas()
    mpi_job = mpi_job_schema(options.mpi_job) if options.mpi_job else None
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        for name in NAMES:
            subprocess.run([simmer, "recipes", "copy", "quickstart", name], cwd=folder, check=True, capture_output=True)
            with open(folder / name, "a") as recipe:
                recipe.write(ODD)
            slurm(simmer, folder, name)
            skypilot(simmer, folder, name, schemas)
            kubernetes(simmer, folder, name, mpi_job)
    for what in sorted(set(checked)):
        print(f"{what}: {checked.count(what)}")
    for program, has in [("sbatch", shutil.which("sbatch")), ("package skypilot", schemas), ("definition of MPIJob (--mpi-job)", mpi_job)]:
        if not has:
            print(f"NOT CHECKED: there is no {program}")


if __name__ == "__main__":
    main()
