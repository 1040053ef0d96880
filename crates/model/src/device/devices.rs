//! One device, or several that share the layers of a model.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use burn::tensor::Device;
use serde::de::{self, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use simmer_kernels::Capabilities;

use super::{DeviceError, capabilities, named};

/// The names of devices: one, or several that share the layers of a model. In a recipe a name, or a list of names; on the
/// command line names with commas between them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Devices {
    /// One device.
    One(String),
    /// Several, in the order of the layers.
    Several(Vec<String>),
}

impl Devices {
    /// The names, in the order of the layers.
    pub fn names(&self) -> &[String] {
        match self {
            Self::One(name) => std::slice::from_ref(name),
            Self::Several(names) => names,
        }
    }

    /// Whether several devices share the layers.
    pub fn are_several(&self) -> bool {
        self.names().len() > 1
    }

    /// Checks names, for any build and any machine. Several devices are different GPUs. The processor may be named several
    /// times: that gains nothing, and shows on any machine whether a run with several devices works.
    ///
    /// # Errors
    /// An unknown name, an empty list, devices of different kinds, `auto` in a list, and a GPU that is named twice.
    pub fn check(&self) -> Result<(), DeviceError> {
        self.all().map(|_| ())
    }

    fn all(&self) -> Result<Vec<Capabilities>, DeviceError> {
        let names = self.names();
        let all: Vec<Capabilities> = names
            .iter()
            .map(|name| capabilities(name))
            .collect::<Result<_, _>>()?;
        let Some(first) = all.first() else {
            return Err(DeviceError::None);
        };
        if names.len() == 1 {
            return Ok(all);
        }
        if names.iter().any(|name| name == "auto") {
            return Err(DeviceError::AutoOfSeveral);
        }
        if let Some(other) = all.iter().find(|other| kind(other) != kind(first)) {
            return Err(DeviceError::Kinds {
                first: first.name(),
                other: other.name(),
            });
        }
        let mut seen = BTreeSet::new();
        for device in all.iter().filter(|device| !device.memory.is_main()) {
            let found = device.name();
            if !seen.insert(found.clone()) {
                return Err(DeviceError::Twice { found });
            }
        }
        Ok(all)
    }

    /// The devices, in the order of the layers.
    ///
    /// # Errors
    /// As [`Devices::check`] and [`named`].
    pub fn open(&self) -> Result<Vec<Device>, DeviceError> {
        self.check()?;
        self.names().iter().map(|name| named(name)).collect()
    }

    /// What each of them can do, whether or not this build and this machine have it; several are of one kind.
    ///
    /// # Errors
    /// As [`Devices::check`].
    pub fn each(&self) -> Result<Vec<Capabilities>, DeviceError> {
        self.all()
    }

    /// What the first of them can do. Several are of one kind.
    ///
    /// # Errors
    /// As [`Devices::check`].
    pub fn capabilities(&self) -> Result<Capabilities, DeviceError> {
        let all = self.all()?;
        all.first().copied().ok_or(DeviceError::None)
    }

    /// The names with `auto` resolved, as a text for people.
    ///
    /// # Errors
    /// As [`Devices::check`].
    pub fn resolved(&self) -> Result<String, DeviceError> {
        let names: Vec<String> = self.all()?.iter().map(Capabilities::name).collect();
        Ok(names.join(", "))
    }

    /// These names.
    pub fn of(mut names: Vec<String>) -> Self {
        match names.len() {
            1 => Self::One(names.remove(0)),
            _ => Self::Several(names),
        }
    }

    /// The value of the key `device` in TOML.
    pub fn toml(&self) -> String {
        let quoted = |name: &String| format!("\"{name}\"");
        match self {
            Self::One(name) => quoted(name),
            Self::Several(names) => {
                let names: Vec<String> = names.iter().map(quoted).collect();
                format!("[{}]", names.join(", "))
            }
        }
    }
}

impl<'de> Deserialize<'de> for Devices {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Found;

        impl<'de> Visitor<'de> for Found {
            type Value = Devices;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a device or a list of devices")
            }

            fn visit_str<E: de::Error>(self, name: &str) -> Result<Devices, E> {
                Ok(Devices::One(name.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Devices, A::Error> {
                let mut names = Vec::new();
                while let Some(name) = list.next_element()? {
                    names.push(name);
                }
                Ok(Devices::of(names))
            }
        }

        deserializer.deserialize_any(Found)
    }
}

/// The name of a device without its number.
fn kind(device: &Capabilities) -> String {
    let name = device.name();
    name.split(':').next().unwrap_or_default().to_owned()
}

impl Default for Devices {
    fn default() -> Self {
        Self::One("auto".to_owned())
    }
}

/// Names with commas between them.
impl FromStr for Devices {
    type Err = DeviceError;

    fn from_str(text: &str) -> Result<Self, DeviceError> {
        let names = text.split(',').map(|name| name.trim().to_owned());
        let found = Self::of(names.collect());
        found.check()?;
        Ok(found)
    }
}

/// As [`Devices::from_str`] reads them.
impl fmt::Display for Devices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.names().join(","))
    }
}

impl schemars::JsonSchema for Devices {
    fn schema_name() -> Cow<'static, str> {
        "Devices".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "anyOf": [
                { "type": "string" },
                { "type": "array", "items": { "type": "string" }, "minItems": 1 }
            ]
        })
    }
}

#[cfg(test)]
mod tests {
    use simmer_hint::Hint;

    use super::*;

    #[test]
    fn gpus_may_share_a_model() {
        let found: Devices = "libtorch-cuda:1, libtorch-cuda:0".parse().unwrap();
        assert_eq!(found.names(), ["libtorch-cuda:1", "libtorch-cuda:0"]);
        assert!(found.are_several());
        assert_eq!(found.to_string(), "libtorch-cuda:1,libtorch-cuda:0");
        assert_eq!(found.toml(), r#"["libtorch-cuda:1", "libtorch-cuda:0"]"#);
        // the processor stands for several devices in tests
        for name in ["cpu,cpu,cpu", "libtorch,libtorch", "auto"] {
            assert_eq!(name.parse::<Devices>().unwrap().to_string(), name);
        }
        let one: Devices = serde_json::from_str("\"cpu\"").unwrap();
        assert_eq!(one, "cpu".parse().unwrap());
        assert_eq!(serde_json::to_string(&one).unwrap(), "\"cpu\"");
    }

    #[test]
    fn other_lists_are_refused() {
        let said = |text: &str| {
            let error = text.parse::<Devices>().unwrap_err();
            let hint = error.hint().unwrap_or_default();
            format!("{error}\nhint: {hint}\n")
        };
        let all = [
            "cpu,libtorch",
            "libtorch-cuda:0,libtorch",
            "libtorch-cuda:1,libtorch-cuda:1",
            "auto,libtorch-cuda:1",
        ];
        insta::assert_snapshot!(all.map(said).concat(), @r#"
        devices cpu and libtorch: expected devices of one kind to share a model
        hint: name GPUs alone, such as ["libtorch-cuda:0", "libtorch-cuda:1"], or one device
        devices libtorch-cuda:0 and libtorch: expected devices of one kind to share a model
        hint: name GPUs alone, such as ["libtorch-cuda:0", "libtorch-cuda:1"], or one device
        device libtorch-cuda:1: named twice in a list of devices that share a model
        hint: name each GPU once
        device auto: expected the names of devices in a list, found auto
        hint: name each GPU, such as ["libtorch-cuda:0", "libtorch-cuda:1"]
        "#);
        let none = Devices::Several(Vec::new()).check();
        assert_eq!(none, Err(DeviceError::None));
        let of_text = Devices::One("libtorch-cuda:0, libtorch-cuda:1".to_owned()).check();
        let hint = of_text.unwrap_err().hint().unwrap();
        insta::assert_snapshot!(hint, @r#"several devices are a list: ["libtorch-cuda:0", "libtorch-cuda:1"]"#);
    }
}
