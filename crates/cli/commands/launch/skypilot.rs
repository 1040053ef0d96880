//! A task for SkyPilot.

use std::path::{Component, Path};

use serde_json::{Map, Value, json};

use super::job::{Job, Place, comment, shell};
use super::{mpirun, yaml};
use crate::failure::Failure;

/// Where the bucket is mounted on every node.
const RUNS: &str = "/simmer-runs";

/// The task; `file` is its path.
///
/// # Errors
/// What it needs and the command line does not have.
pub(super) fn task(job: &Job, file: &str) -> Result<String, Failure> {
    let Some(image) = &job.image else {
        return Err(missing("--image", "the container image with simmer"));
    };
    let Some(storage) = &job.storage else {
        return Err(missing(
            "--storage",
            "the bucket that keeps the run, such as s3://my-bucket",
        ));
    };
    if job.names_folder {
        let text = format!("--out: SkyPilot keeps the run in {RUNS}/{}", job.name);
        return Err(Failure::new(text)
            .with_hint("leave --out out; the name of the recipe is that of the run"));
    }
    let below = |part: Component| matches!(part, Component::Normal(_) | Component::CurDir);
    if !Path::new(&job.words[0]).components().all(below) {
        let text = format!(
            "{}: the recipe is not below the current folder",
            job.words[0]
        );
        return Err(Failure::new(text)
            .with_hint("SkyPilot copies the current folder: name the recipe by its path in it"));
    }
    let task = json!({
        "name": job.name,
        "num_nodes": job.nodes,
        "workdir": ".",
        "resources": resources(job, image),
        "file_mounts": { RUNS: { "source": storage, "mode": "MOUNT_CACHED" } },
        "setup": "set -e\nsimmer --version\ncommand -v mpirun\n",
        "run": run(job)?,
    });
    Ok(format!(
        "# {}\n#   {}\n\
         # An instance that is taken away loses the steps after the last checkpoint (train.checkpoint_every);\n\
         # the task is started again elsewhere, and resumes from the bucket.\n{}\n",
        job.title(Place::SkyPilot),
        comment(&Place::SkyPilot.submit(job, file)),
        yaml::document(&task)
    ))
}

fn missing(option: &str, what: &str) -> Failure {
    Failure::new(format!("{option} is missing: {what}"))
        .with_hint("docs/guide/several-ranks.md says what it has to have")
}

fn resources(job: &Job, image: &str) -> Value {
    let mut resources = Map::new();
    resources.insert("image_id".to_owned(), format!("docker:{image}").into());
    resources.insert("use_spot".to_owned(), true.into());
    if let Some(cores) = job.cores_of_node() {
        resources.insert("cpus".to_owned(), format!("{cores}+").into());
    }
    if let Some(memory) = job.memory {
        resources.insert("memory".to_owned(), format!("{}+", memory.gib()).into());
    }
    if let Some(gpus) = &job.gpus {
        let kind = gpus
            .kind
            .as_deref()
            .map(|kind| format!("{kind}:{}", gpus.count));
        if let Some(kind) = kind {
            resources.insert("accelerators".to_owned(), kind.into());
        }
    }
    resources.into()
}

/// The commands of every node.
fn run(job: &Job) -> Result<String, Failure> {
    let gpus_without_type = job.gpus.as_ref().is_some_and(|gpus| gpus.kind.is_none());
    if gpus_without_type {
        return Err(
            Failure::new("--gpus: SkyPilot needs their type, such as H100:4")
                .with_hint("`sky show-gpus` lists the types"),
        );
    }
    let mut words = job.arguments();
    words.extend(["--out".to_owned(), format!("{RUNS}/{}", job.name)]);
    if job.nodes == 1 {
        let launch = mpirun::launch(job, &words);
        return Ok(format!("{}\n", shell(&launch)));
    }
    let ranks = job.ranks_of_node();
    let started = mpirun::on_nodes(job, &words)?;
    Ok(format!(
        "# the first node starts the ranks on all\n\
         if [ \"$SKYPILOT_NODE_RANK\" -ne 0 ]; then\n  exit 0\nfi\n\
         hosts=\nfor node in $SKYPILOT_NODE_IPS; do\n  hosts=\"$hosts${{hosts:+,}}$node:{ranks}\"\ndone\n\
         mpirun --host \"$hosts\" --wdir \"$PWD\" -x PATH {}\n",
        shell(&started)
    ))
}
