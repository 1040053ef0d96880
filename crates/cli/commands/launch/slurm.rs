//! A batch script for Slurm.

use std::fmt::Write as _;

use super::job::{Job, Place, comment, no_option, shell};
use crate::commands::train::quoted;
use crate::failure::{Failure, bail};

/// What the shell of the job does before the ranks run: it passes the signal before the time limit on to them.
///
/// `srun` does not pass SIGTERM on: it kills the ranks. And the shell gets SIGTERM when somebody cancels the job, which must not
/// be queued again then; so the signal before the time limit is another one.
const TRAP: &str = r#"
stopped=
stop() {
    stopped=yes
    scancel --signal=TERM "$SLURM_JOB_ID"    # to the ranks; if srun got the signal, it would kill them
}
trap stop USR1

"#;

/// What the shell does when the ranks run: it waits for them, and has the job queued again if they have stopped because of the
/// signal.
const WAIT: &str = r#"ranks=$!

# a signal ends `wait` before the ranks end
while kill -0 "$ranks" 2> /dev/null; do
    wait "$ranks"
done
wait "$ranks"
status=$?
if [ -n "$stopped" ] && [ "$status" -ne 0 ]; then
    echo "stopped at a signal; the job is queued again, and resumes" >&2
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
"#;

/// The script; `file` is its path.
///
/// # Errors
/// A partition that is no name.
pub(super) fn script(job: &Job, file: &str) -> Result<String, Failure> {
    let mut text = format!("#!/bin/bash\n# {}\n", job.title(Place::Slurm));
    let _ = write!(
        text,
        "#   sbatch {}\n\
         # {} s before the time limit the ranks get SIGTERM: they write a checkpoint, and the job is queued again.\n\
         # It resumes then, and also after Slurm has queued it again because a node failed.\n",
        comment(&quoted(&no_option(file))),
        job.grace
    );
    for option in options(job)? {
        let _ = writeln!(text, "#SBATCH {option}");
    }
    text += "\nset -u\n# load here what simmer needs, such as `module load openmpi`\n\
             if ! command -v simmer > /dev/null; then\n    \
             echo \"error: simmer is not in PATH\" >&2\n    exit 127\nfi\n";
    text += TRAP;
    let cores = match job.cores {
        Some(cores) => format!(" --cpus-per-task={cores} --cpu-bind=cores"),
        None => String::new(),
    };
    let _ = write!(
        text,
        "srun --mpi=pmix --kill-on-bad-exit=1{cores} \\\n    simmer train {} &\n",
        shell(&job.arguments())
    );
    Ok(text + WAIT)
}

/// The options of sbatch.
fn options(job: &Job) -> Result<Vec<String>, Failure> {
    let mut options = vec![
        format!("--job-name={}", job.name),
        format!("--output={}-%j.log", job.name),
        "--open-mode=append".to_owned(),
        format!("--nodes={}", job.nodes),
        format!("--ntasks={}", job.ranks),
        format!("--ntasks-per-node={}", job.ranks_of_node()),
    ];
    if let Some(cores) = job.cores {
        options.push(format!("--cpus-per-task={cores}"));
    }
    if let Some(gpus) = &job.gpus {
        let kind = gpus.kind.as_ref().map(|kind| format!("{kind}:"));
        options.push(format!("--gpus-per-task={}1", kind.unwrap_or_default()));
    }
    if let Some(memory) = job.memory {
        options.push(format!("--mem={}", memory.slurm()));
    }
    if let Some(time) = job.time {
        options.push(format!("--time={}", time.slurm()));
    }
    if let Some(partition) = &job.partition {
        let letters = |c: char| c.is_ascii_alphanumeric() || "-_.,".contains(c);
        if partition.is_empty() || !partition.chars().all(letters) {
            bail!("--partition: expected the name of a partition, found {partition:?}");
        }
        options.push(format!("--partition={partition}"));
    }
    options.push("--requeue".to_owned());
    options.push(format!("--signal=B:USR1@{}", job.grace));
    Ok(options)
}
