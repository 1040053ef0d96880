//! The wheel: the program for every Linux with glibc 2.28 or newer, installed by pip.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::{Dist, VERSION, archive, licences};
use crate::shell::{output, run};

/// The oldest glibc: that of RHEL 8 and Debian 10, and of torch's wheels.
pub(super) const GLIBC: &str = "2_28";

/// Builds the program, and makes its wheel and its archive.
pub(super) fn make(dist: &Dist) -> Result<()> {
    let target = Dist::target("gnu");
    let policy = policy();
    let stage = dist.stage("wheel")?;
    let out = stage.display().to_string();
    let arguments = [
        "build",
        "--release",
        "--locked",
        "--zig",
        "--target",
        &target,
        "--compatibility",
        &policy,
        "--out",
        &out,
    ];
    run(&mut dist.command(&dist.root, "maturin", &arguments))?;
    let built = stage.join(format!("simmer-{VERSION}-py3-none-{policy}.whl"));
    run(&mut dist.command(&stage, "wheel", &["unpack", &built.display().to_string()]))?;
    let folder = stage.join(format!("simmer-{VERSION}"));
    let name = |kind: &str| folder.join(format!("simmer-{VERSION}.{kind}"));
    let program = name("data").join("scripts/simmer");
    // below the prefix of the environment, where its shells and `man` look
    archive::shared(&program, &name("data").join("data"))?;
    let texts = licences::collect(dist, &target, &[])?;
    archive::write(
        &name("dist-info").join("licenses").join(licences::FILE),
        &texts,
    )?;
    let wheel = packed(dist, &stage, &folder)?;
    prove(dist, &wheel, &policy)?;
    archive::copy(
        &wheel,
        &dist.folder.join(wheel.file_name().unwrap_or_default()),
    )?;
    archive::make(dist, &program, &target)
}

/// The platform tag of PEP 600, and auditwheel's name of the policy.
pub(super) fn policy() -> String {
    format!("manylinux_{GLIBC}_{}", std::env::consts::ARCH)
}

/// Packs an unpacked wheel into a new folder of `stage`; returns the wheel.
pub(super) fn packed(dist: &Dist, stage: &Path, folder: &Path) -> Result<PathBuf> {
    let into = stage.join("packed");
    fs::create_dir_all(&into).with_context(|| format!("cannot create {}", into.display()))?;
    let (folder, out) = (folder.display().to_string(), into.display().to_string());
    run(&mut dist.command(stage, "wheel", &["pack", &folder, "--dest-dir", &out]))?;
    let mut wheels = fs::read_dir(&into)?;
    let wheel = wheels.next().context("`wheel pack` wrote no wheel")?;
    Ok(wheel?.path())
}

/// Fails unless auditwheel agrees that the wheel satisfies a policy: its program needs no symbols and no libraries that
/// a system of that age lacks.
fn prove(dist: &Dist, wheel: &Path, policy: &str) -> Result<()> {
    let found = constrained(dist, wheel)?;
    // `auditwheel show` names the oldest policy that the wheel satisfies
    let version = |tag: &str| -> Option<u32> {
        let tag = tag.strip_prefix("manylinux_2_")?;
        tag.split('_').next()?.parse().ok()
    };
    match (version(&found), version(policy)) {
        (Some(found), Some(wanted)) if found <= wanted => Ok(()),
        _ => bail!(
            "{}: auditwheel finds {found}, expected {policy}",
            wheel.display()
        ),
    }
}

/// The platform tag that auditwheel derives from the symbols that a wheel's program needs.
pub(super) fn constrained(dist: &Dist, wheel: &Path) -> Result<String> {
    let wheel = wheel.display().to_string();
    let printed = output(&mut dist.command(&dist.folder, "auditwheel", &["show", &wheel]))?;
    println!("{}", printed.trim());
    tag(&printed)
}

/// The tag in what `auditwheel show` printed.
fn tag(printed: &str) -> Result<String> {
    let words: Vec<&str> = printed.split_whitespace().collect();
    let printed = words.join(" ");
    let found = printed
        .split("This constrains the platform tag to \"")
        .nth(1);
    let found = found.and_then(|rest| rest.split('"').next());
    let found =
        found.with_context(|| format!("`auditwheel show` names no platform tag: {printed}"))?;
    Ok(found.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tag_is_read() {
        let printed = "\nx.whl is consistent with the following platform tag:\n\"linux_x86_64\".\n\nThe wheel references \
            external versioned symbols. This constrains the\nplatform tag to \"manylinux_2_28_x86_64\". In order\n";
        assert_eq!(tag(printed).unwrap(), "manylinux_2_28_x86_64");
        assert!(tag("nothing").is_err());
    }
}
