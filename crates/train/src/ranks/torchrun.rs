//! What `torchrun`, and whoever starts processes as it does, says in variables of the environment.

use super::RanksError;

/// Rank, number of ranks, and where they meet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Torchrun {
    pub(super) rank: usize,
    pub(super) size: usize,
    /// The machine of rank 0, by name or address.
    pub(super) host: String,
    pub(super) port: u16,
    /// Whether `torchrun` serves the store where the ranks meet; else rank 0 does.
    pub(super) agent_serves: bool,
    /// How often `torchrun` has started the ranks again, each time with the same store.
    pub(super) attempt: String,
}

impl Torchrun {
    /// The variables of a rank of so many.
    ///
    /// # Errors
    /// A variable that is missing or wrong.
    pub(super) fn read(
        size: usize,
        variable: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, RanksError> {
        let of = |name| {
            let text = variable(name).filter(|text| !text.is_empty());
            text.ok_or(RanksError::Missing {
                variable: name,
                size,
            })
        };
        let wrong = |variable, expected: String, found| RanksError::Variable {
            variable,
            expected,
            found,
        };
        let text = of("RANK")?;
        let rank = text.parse().ok().filter(|rank| *rank < size);
        let rank = rank.ok_or_else(|| {
            let expected = format!("a rank from 0 to {}", size - 1);
            wrong("RANK", expected, text)
        })?;
        let host = of("MASTER_ADDR")?;
        let text = of("MASTER_PORT")?;
        let port = text.parse().ok().filter(|port| *port > 0);
        let port = port.ok_or_else(|| {
            let expected = "a port from 1 to 65535".to_owned();
            wrong("MASTER_PORT", expected, text)
        })?;
        let agent_serves = variable("TORCHELASTIC_USE_AGENT_STORE");
        Ok(Self {
            rank,
            size,
            host,
            port,
            agent_serves: agent_serves.as_deref() == Some("True"),
            attempt: variable("TORCHELASTIC_RESTART_COUNT").unwrap_or_else(|| "0".to_owned()),
        })
    }
}
