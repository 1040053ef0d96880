//! Where ranks compute: each on its own GPU, or on processors.

use std::collections::BTreeMap;
use std::fs;
use std::process;

use serde::{Deserialize, Serialize};
use simmer_kernels::Capabilities;

use super::RanksError;
use super::gpus::{self, Found};

/// Variables that launchers set, with the rank among those of one machine.
const LOCAL_RANKS: [&str; 5] = [
    "LOCAL_RANK",
    "OMPI_COMM_WORLD_LOCAL_RANK",
    "MPI_LOCALRANKID",
    "MV2_COMM_WORLD_LOCAL_RANK",
    "SLURM_LOCALID",
];

/// The kind of device that counts GPUs.
const GPU: &str = "libtorch-cuda:";

/// Where a rank computes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Place {
    /// The name of the machine.
    host: String,
    /// The number of the process.
    process: u32,
    /// The name of the device.
    device: String,
    /// Of a GPU: what the driver calls it, whichever GPUs the process sees.
    gpu: Option<String>,
    /// Of a GPU: the version of NCCL, or why there is none.
    pub(super) nccl: Option<Found>,
}

impl Place {
    /// Of this process.
    pub(super) fn of(device: &str) -> Self {
        // wrong names are reported where the device is opened
        let device = Capabilities::named(device).map_or(device.to_owned(), |found| found.name());
        let visible = std::env::var("CUDA_VISIBLE_DEVICES").ok();
        let gpu = device.strip_prefix(GPU);
        Self {
            host: fs::read_to_string("/proc/sys/kernel/hostname")
                .map_or_else(|_| "this machine".to_owned(), |name| name.trim().to_owned()),
            process: process::id(),
            gpu: gpu.map(|index| in_driver(index, visible.as_deref())),
            nccl: gpu.map(|_| gpus::found()),
            device,
        }
    }
}

/// What the driver calls a GPU of a process that sees only some.
fn in_driver(index: &str, visible: Option<&str>) -> String {
    let place = index.parse::<usize>().ok();
    let of_list = place.zip(visible).and_then(|(place, list)| {
        let name = list.split(',').nth(place)?.trim();
        (!name.is_empty()).then(|| name.to_owned())
    });
    of_list.unwrap_or_else(|| index.to_owned())
}

/// Refuses two ranks on one GPU.
pub(super) fn check(places: &[Place]) -> Result<(), RanksError> {
    let mut seen: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for (rank, place) in places.iter().enumerate() {
        let Some(gpu) = &place.gpu else { continue };
        let other = seen.insert((&place.host, gpu), rank);
        // ranks that are threads of one process share its GPU
        if let Some(other) = other.filter(|other| places[*other].process != place.process) {
            return Err(RanksError::SameGpu {
                ranks: [other, rank],
                device: place.device.clone(),
                host: place.host.clone(),
            });
        }
    }
    Ok(())
}

/// All ranks, such as `rank 0 on cpu of a1, rank 1 on cpu of a2`.
pub(crate) fn described(places: &[Place]) -> String {
    let each = places.iter().enumerate();
    let each =
        each.map(|(rank, Place { device, host, .. })| format!("rank {rank} on {device} of {host}"));
    each.collect::<Vec<_>>().join(", ")
}

/// The device of this rank, for the one of a recipe: if that is a GPU, or `auto` where there is one, the GPU whose number is the
/// rank among those of its machine. A process that sees one GPU alone takes it.
///
/// # Errors
/// A launcher's variable that is not a number.
pub fn device(of_recipe: &str) -> Result<String, RanksError> {
    let gpus = simmer_kernels::gpus();
    chosen(of_recipe, gpus, &|name| std::env::var(name).ok())
}

fn chosen(
    of_recipe: &str,
    gpus: usize,
    variable: &dyn Fn(&str) -> Option<String>,
) -> Result<String, RanksError> {
    let is_gpu = of_recipe.starts_with(GPU) || (of_recipe == "auto" && gpus > 0);
    let mut found = LOCAL_RANKS
        .iter()
        .filter_map(|name| Some((*name, variable(name)?)));
    let Some((name, text)) = found.next().filter(|_| is_gpu) else {
        return Ok(of_recipe.to_owned());
    };
    let Ok(local) = text.parse::<usize>() else {
        return Err(RanksError::Variable {
            variable: name,
            expected: "the rank on this machine".to_owned(),
            found: text,
        });
    };
    let index = if gpus == 1 { 0 } else { local };
    Ok(if of_recipe == "auto" && index == 0 {
        of_recipe.to_owned()
    } else {
        format!("{GPU}{index}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rank_takes_the_gpu_of_its_place_on_the_machine() {
        let of = |recipe: &str, gpus, local: Option<&str>| {
            chosen(recipe, gpus, &|name| {
                local.filter(|_| name == "SLURM_LOCALID").map(str::to_owned)
            })
        };
        let device = |recipe, gpus, local| of(recipe, gpus, Some(local)).unwrap();
        assert_eq!(device("libtorch-cuda:0", 4, "2"), "libtorch-cuda:2");
        assert_eq!(device("libtorch-cuda:3", 4, "1"), "libtorch-cuda:1");
        assert_eq!(device("auto", 4, "1"), "libtorch-cuda:1");
        assert_eq!(device("auto", 4, "0"), "auto");
        // a launcher that shows each process its own
        assert_eq!(device("libtorch-cuda:0", 1, "2"), "libtorch-cuda:0");
        for processor in ["cpu", "libtorch", "auto"] {
            assert_eq!(device(processor, 0, "1"), processor);
        }
        assert_eq!(
            of("libtorch-cuda:1", 4, None),
            Ok("libtorch-cuda:1".to_owned())
        );
        let error = of("auto", 2, Some("x")).unwrap_err().to_string();
        assert_eq!(
            error,
            "SLURM_LOCALID: expected the rank on this machine, found \"x\""
        );
    }

    #[test]
    fn two_ranks_on_one_gpu_are_refused() {
        let place = |host: &str, process, index: &str, visible| Place {
            host: host.to_owned(),
            process,
            device: format!("{GPU}{index}"),
            gpu: Some(in_driver(index, visible)),
            nccl: None,
        };
        let said = |places: &[Place]| check(places).map_err(|error| error.to_string());
        let first = place("a", 1, "0", None);
        let others = [
            place("b", 2, "0", None),
            place("a", 2, "1", None),
            place("a", 2, "0", Some("3,0")),
            place("a", 1, "0", None),
        ];
        for other in others {
            assert_eq!(said(&[first.clone(), other]), Ok(()));
        }
        let both = [
            first.clone(),
            place("b", 2, "0", None),
            place("a", 3, "1", Some("3, 0")),
        ];
        assert_eq!(
            said(&both).unwrap_err(),
            "ranks 0 and 2 would compute on one GPU, libtorch-cuda:1 of a"
        );
        let processors = [
            Place::of("cpu"),
            Place {
                process: 0,
                ..Place::of("cpu")
            },
        ];
        assert_eq!(said(&processors), Ok(()));
    }
}
