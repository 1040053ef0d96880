//! Manifests for Kubernetes: a `ConfigMap` with the recipe, and a `Job`; for several nodes an `MPIJob` of Kubeflow's
//! mpi-operator (v2beta1).

use serde_json::{Map, Value, json};

use super::job::{Job, Place, comment};
use super::{mpirun, yaml};
use crate::failure::Failure;

/// Where the recipe is mounted.
const RECIPE: &str = "/recipe/recipe.toml";
/// Where the claim is mounted: base model, data and run.
const WORK: &str = "/work";
/// Seconds from the end of a checkpoint to the end of a process.
const END: u32 = 30;

/// The manifests; `file` is their path.
///
/// # Errors
/// What they need and the command line does not have.
pub(super) fn manifests(job: &Job, file: &str) -> Result<String, Failure> {
    let missing = |option: &str, what: &str| {
        Failure::new(format!("{option} is missing: {what}"))
            .with_hint("docs/guide/several-ranks.md says what it has to have")
    };
    let Some(image) = &job.image else {
        return Err(missing("--image", "the container image with simmer"));
    };
    let Some(claim) = &job.storage else {
        let what = "the PersistentVolumeClaim with base model and data, which keeps the run";
        return Err(missing("--storage", what));
    };
    if job.cores.is_none() {
        return Err(missing("--cores", "the processor cores of each rank"));
    }
    let mut words = job.arguments();
    RECIPE.clone_into(&mut words[0]);
    if !job.names_folder {
        words.extend(["--out".to_owned(), job.folder.clone()]);
    }
    let configuration = json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": { "name": format!("{}-recipe", job.name) },
        "data": { "recipe.toml": job.text },
    });
    let pods = Pods { job, image, claim };
    let (main, note) = if job.nodes == 1 {
        (
            pods.job(&words),
            "A pod that is evicted writes a checkpoint; the one that follows it resumes.",
        )
    } else {
        (
            pods.mpi_job(&words)?,
            "Needs the mpi-operator. If a pod is lost, the launcher starts again, and resumes from the last checkpoint.",
        )
    };
    Ok(format!(
        "# {}\n#   {}\n# {note}\n{}\n---\n{}\n",
        job.title(Place::Kubernetes),
        comment(&Place::Kubernetes.submit(job, file)),
        yaml::document(&configuration),
        yaml::document(&main)
    ))
}

/// What the pods of a job have in common.
struct Pods<'a> {
    job: &'a Job,
    image: &'a str,
    claim: &'a str,
}

impl Pods<'_> {
    /// All ranks in one pod.
    fn job(&self, words: &[String]) -> Value {
        let mut container = self.container(self.resources());
        container["command"] = literal(mpirun::launch(self.job, words));
        let mut pod = self.pod(container);
        pod["restartPolicy"] = "Never".into();
        pod["terminationGracePeriodSeconds"] = (self.job.grace + END).into();
        let evicted = json!({
            "action": "Ignore",
            "onPodConditions": [{ "type": "DisruptionTarget", "status": "True" }],
        });
        let mut spec = Map::new();
        spec.insert("backoffLimit".to_owned(), 6.into());
        spec.insert("podFailurePolicy".to_owned(), json!({ "rules": [evicted] }));
        if let Some(time) = self.job.time {
            spec.insert("activeDeadlineSeconds".to_owned(), time.seconds().into());
        }
        spec.insert("template".to_owned(), json!({ "spec": pod }));
        json!({
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": { "name": self.job.name },
            "spec": spec,
        })
    }

    /// A pod with ranks on each node, and one that starts them.
    fn mpi_job(&self, words: &[String]) -> Result<Value, Failure> {
        let mut command = vec!["mpirun".to_owned(), "--wdir".to_owned(), WORK.to_owned()];
        command.extend(mpirun::on_nodes(self.job, words)?);
        let mut launcher = self.container(json!({}));
        launcher["command"] = literal(command);
        let mut worker = self.container(self.resources());
        worker["command"] = json!(["/usr/sbin/sshd", "-De"]);
        let mut policy = json!({ "cleanPodPolicy": "Running", "backoffLimit": 6 });
        if let Some(time) = self.job.time {
            policy["activeDeadlineSeconds"] = time.seconds().into();
        }
        Ok(json!({
            "apiVersion": "kubeflow.org/v2beta1",
            "kind": "MPIJob",
            "metadata": { "name": self.job.name },
            "spec": {
                "slotsPerWorker": self.job.ranks_of_node(),
                "mpiImplementation": "OpenMPI",
                "launcherCreationPolicy": "WaitForWorkersReady",
                "runPolicy": policy,
                "mpiReplicaSpecs": {
                    "Launcher": {
                        "replicas": 1,
                        "restartPolicy": "OnFailure",
                        "template": { "spec": self.pod(launcher) },
                    },
                    "Worker": {
                        "replicas": self.job.nodes,
                        "restartPolicy": "OnFailure",
                        "template": { "spec": self.pod(worker) },
                    },
                },
            },
        }))
    }

    fn container(&self, resources: Value) -> Value {
        json!({
            "name": "simmer",
            "image": self.image,
            "workingDir": WORK,
            "resources": resources,
            "volumeMounts": [
                { "name": "recipe", "mountPath": "/recipe" },
                { "name": "work", "mountPath": WORK },
                // ranks of one node send through shared memory; a container has 64 MiB without this
                { "name": "shared-memory", "mountPath": "/dev/shm" },
            ],
        })
    }

    fn pod(&self, container: Value) -> Value {
        let mut pod = json!({
            "containers": [container],
            "volumes": [
                { "name": "recipe", "configMap": { "name": format!("{}-recipe", self.job.name) } },
                { "name": "work", "persistentVolumeClaim": { "claimName": self.claim } },
                { "name": "shared-memory", "emptyDir": { "medium": "Memory" } },
            ],
        });
        if let Some(kind) = self.job.gpus.as_ref().and_then(|gpus| gpus.kind.as_ref()) {
            pod["nodeSelector"] = json!({ "nvidia.com/gpu.product": kind });
        }
        pod
    }

    /// Of a pod with ranks. With a limit of cores, a process knows how many it has.
    fn resources(&self) -> Value {
        let mut limits = Map::new();
        if let Some(cores) = self.job.cores_of_node() {
            limits.insert("cpu".to_owned(), cores.to_string().into());
        }
        if let Some(memory) = self.job.memory {
            limits.insert("memory".to_owned(), memory.kubernetes().into());
        }
        if let Some(gpus) = &self.job.gpus {
            limits.insert("nvidia.com/gpu".to_owned(), gpus.count.to_string().into());
        }
        json!({ "limits": limits })
    }
}

/// A command whose words arrive as they are: Kubernetes replaces `$(NAME)`, and `$$` by `$`.
fn literal(words: Vec<String>) -> Value {
    let words = words.into_iter().map(|word| word.replace('$', "$$"));
    words.collect::<Vec<_>>().into()
}
