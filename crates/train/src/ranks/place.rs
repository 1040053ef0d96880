//! Where ranks compute: each on its own GPU, or on processors.

use std::collections::BTreeMap;
use std::fs;
use std::process;

use serde::{Deserialize, Serialize};
use simmer_kernels::Capabilities;
use simmer_model::device::Devices;

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
    /// The name of the device, or the names.
    device: String,
    /// What the driver calls its GPUs, whichever GPUs the process sees.
    gpus: Vec<String>,
    /// Of GPUs: the version of NCCL, or why there is none.
    pub(super) nccl: Option<Found>,
}

impl Place {
    /// Of this process.
    pub(super) fn of(devices: &Devices) -> Self {
        // wrong names are reported where the devices are opened
        let names = devices
            .names()
            .iter()
            .map(|name| Capabilities::named(name).map_or(name.clone(), |found| found.name()));
        let names: Vec<String> = names.collect();
        let visible = std::env::var("CUDA_VISIBLE_DEVICES").ok();
        let gpus = names.iter().filter_map(|name| name.strip_prefix(GPU));
        let gpus: Vec<String> = gpus
            .map(|index| in_driver(index, visible.as_deref()))
            .collect();
        Self {
            host: fs::read_to_string("/proc/sys/kernel/hostname")
                .map_or_else(|_| "this machine".to_owned(), |name| name.trim().to_owned()),
            process: process::id(),
            nccl: (!gpus.is_empty()).then(gpus::found),
            gpus,
            device: names.join(" and "),
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
        for gpu in &place.gpus {
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

/// The devices of this rank, for those of a recipe: if they are GPUs, or `auto` where there is one, as many GPUs of its machine, which
/// no rank before it has there. A process that sees so many GPUs alone takes them.
///
/// # Errors
/// A launcher's variable that is not a number.
pub fn devices(of_recipe: &Devices) -> Result<Devices, RanksError> {
    let gpus = simmer_kernels::gpus();
    chosen(of_recipe, gpus, &|name| std::env::var(name).ok())
}

fn chosen(
    of_recipe: &Devices,
    gpus: usize,
    variable: &dyn Fn(&str) -> Option<String>,
) -> Result<Devices, RanksError> {
    let names = of_recipe.names();
    let is_auto = of_recipe == &Devices::default();
    let is_gpu = names.iter().all(|name| name.starts_with(GPU)) || (is_auto && gpus > 0);
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
    let count = names.len();
    let first = if gpus == count { 0 } else { local * count };
    if is_auto && first == 0 {
        return Ok(of_recipe.clone());
    }
    let own = (first..first + count).map(|index| format!("{GPU}{index}"));
    Ok(Devices::of(own.collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rank_takes_the_gpu_of_its_place_on_the_machine() {
        let of = |recipe: &str, gpus, local: Option<&str>| {
            let devices = Devices::of(recipe.split(',').map(str::to_owned).collect());
            let chosen = chosen(&devices, gpus, &|name| {
                local.filter(|_| name == "SLURM_LOCALID").map(str::to_owned)
            });
            chosen.map(|devices| devices.to_string())
        };
        let device = |recipe, gpus, local| of(recipe, gpus, Some(local)).unwrap();
        assert_eq!(device("libtorch-cuda:0", 4, "2"), "libtorch-cuda:2");
        assert_eq!(device("libtorch-cuda:3", 4, "1"), "libtorch-cuda:1");
        assert_eq!(device("auto", 4, "1"), "libtorch-cuda:1");
        assert_eq!(device("auto", 4, "0"), "auto");
        // a launcher that shows each process its own
        assert_eq!(device("libtorch-cuda:0", 1, "2"), "libtorch-cuda:0");
        for processor in ["cpu", "libtorch", "auto", "libtorch,libtorch"] {
            assert_eq!(device(processor, 0, "1"), processor);
        }
        let two = "libtorch-cuda:0,libtorch-cuda:1";
        assert_eq!(device(two, 8, "0"), two);
        assert_eq!(device(two, 8, "2"), "libtorch-cuda:4,libtorch-cuda:5");
        assert_eq!(device(two, 2, "2"), two);
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
            gpus: vec![in_driver(index, visible)],
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
        let pair = Place {
            gpus: vec!["2".to_owned(), "0".to_owned()],
            ..place("a", 4, "2", None)
        };
        assert!(
            said(&[first.clone(), pair])
                .unwrap_err()
                .contains("0 and 1")
        );
        let cpu = || Place::of(&Devices::One("cpu".to_owned()));
        let processors = [
            cpu(),
            Place {
                process: 0,
                ..cpu()
            },
        ];
        assert_eq!(said(&processors), Ok(()));
    }
}
