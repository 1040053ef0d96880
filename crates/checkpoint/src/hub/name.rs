//! Names of models and datasets on the hub.

use std::fmt;
use std::str::FromStr;

use super::HubError;

/// The default branch.
const DEFAULT_REVISION: &str = "main";

/// `ORG/NAME`, `ORG/NAME@REVISION`, and either with `:FILE` for one file.
///
/// The revision is a branch, a tag or a commit; the default is `main`. The parts before `@` and `:` must not contain these
/// characters, so a name is unambiguous.
///
/// ```
/// use simmer_checkpoint::hub::HubName;
///
/// let name: HubName = "org/model-GGUF@v1.0:model-q8_0.gguf".parse()?;
/// assert_eq!(name.repo(), "org/model-GGUF");
/// assert_eq!(name.revision(), "v1.0");
/// assert_eq!(name.file(), Some("model-q8_0.gguf"));
/// # Ok::<(), simmer_checkpoint::hub::HubError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubName {
    repo: String,
    revision: Option<String>,
    file: Option<String>,
    /// Whether this is a dataset; the hub separates them from models.
    dataset: bool,
}

impl HubName {
    /// The dataset with this name.
    #[must_use]
    pub fn of_dataset(self) -> Self {
        Self {
            dataset: true,
            ..self
        }
    }

    /// Whether it is the name of a dataset.
    pub fn is_dataset(&self) -> bool {
        self.dataset
    }

    /// The name of its kind in addresses and folders.
    pub(super) fn kind(&self) -> &'static str {
        if self.dataset { "datasets" } else { "models" }
    }

    /// The path of its files below the hub's address.
    pub(super) fn place(&self) -> String {
        let prefix = if self.dataset { "datasets/" } else { "" };
        format!("{prefix}{}", self.repo)
    }

    /// `ORG/NAME`.
    pub fn repo(&self) -> &str {
        &self.repo
    }

    /// Branch, tag or commit.
    pub fn revision(&self) -> &str {
        self.revision.as_deref().unwrap_or(DEFAULT_REVISION)
    }

    /// Whether the name has a revision.
    pub fn has_revision(&self) -> bool {
        self.revision.is_some()
    }

    /// The file in the name, with its folders.
    pub fn file(&self) -> Option<&str> {
        self.file.as_deref()
    }

    /// The revision if it is a full commit hash, whose files never change.
    pub(super) fn commit(&self) -> Option<&str> {
        self.revision.as_deref().filter(|text| is_commit(text))
    }
}

impl fmt::Display for HubName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.repo)?;
        if let Some(revision) = &self.revision {
            write!(f, "@{revision}")?;
        }
        if let Some(file) = &self.file {
            write!(f, ":{file}")?;
        }
        Ok(())
    }
}

impl FromStr for HubName {
    type Err = HubError;

    fn from_str(text: &str) -> Result<Self, HubError> {
        let (before, file) = split(text, ':');
        let (repo, revision) = split(before, '@');
        check_repo(repo)
            .and_then(|()| revision.map_or(Ok(()), check_revision))
            .and_then(|()| match file {
                Some(file) if !is_relative_file(file) => Err("its file is not a relative path"),
                _ => Ok(()),
            })
            .map_err(|problem| HubError::Name {
                name: text.to_owned(),
                problem,
            })?;
        Ok(Self {
            repo: repo.to_owned(),
            revision: revision.map(str::to_owned),
            file: file.map(str::to_owned),
            dataset: false,
        })
    }
}

fn split(text: &str, at: char) -> (&str, Option<&str>) {
    text.split_once(at)
        .map_or((text, None), |(before, after)| (before, Some(after)))
}

/// The hub's rules for names.
fn check_repo(repo: &str) -> Result<(), &'static str> {
    let Some((organisation, name)) = repo.split_once('/') else {
        return Err("it has no `/`");
    };
    if name.contains('/') {
        return Err("it has more than one `/`");
    }
    if repo.len() > 96 {
        return Err("it has more than 96 characters");
    }
    for part in [organisation, name] {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if part.is_empty() {
            return Err("the part before or after the `/` is empty");
        }
        if !part.chars().all(plain) {
            return Err("it has characters other than letters, digits, `-`, `_` and `.`");
        }
        if part.starts_with(['-', '.']) || part.ends_with(['-', '.']) {
            return Err("a part of it starts or ends with `-` or `.`");
        }
        if part.contains("--") || part.contains("..") {
            return Err("it has `--` or `..`");
        }
    }
    if name.strip_suffix(".git").is_some() {
        return Err("it ends with `.git`");
    }
    Ok(())
}

/// Whether git allows this revision and it is safe in a path and in a request.
fn check_revision(revision: &str) -> Result<(), &'static str> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.+/".contains(c);
    if revision.len() > 200 || !revision.chars().all(plain) || !is_relative_file(revision) {
        return Err("its revision is not the name of a branch, a tag or a commit");
    }
    Ok(())
}

/// Whether this is a full git commit hash.
pub(super) fn is_commit(text: &str) -> bool {
    text.len() == 40 && is_hex(text)
}

pub(super) fn is_hex(text: &str) -> bool {
    let digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    text.bytes().all(digit)
}

/// Whether this path stays below the folder it is joined to, on every system, and is printable.
pub(super) fn is_relative_file(path: &str) -> bool {
    path.len() <= 1024
        && !path.contains(['\\', ':'])
        && !path.contains(char::is_control)
        && path
            .split('/')
            .all(|part| !part.is_empty() && part != "." && part != ".." && part.len() <= 255)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_four_spellings() {
        for (text, repo, revision, file) in [
            ("org/name", "org/name", "main", None),
            ("org/name@v1", "org/name", "v1", None),
            ("o_1/n.a-m", "o_1/n.a-m", "main", None),
            (
                "org/name@refs/pr/1:sub/q8.gguf",
                "org/name",
                "refs/pr/1",
                Some("sub/q8.gguf"),
            ),
            ("org/name:a@b.gguf", "org/name", "main", Some("a@b.gguf")),
        ] {
            let name: HubName = text.parse().unwrap();
            assert_eq!(
                (name.repo(), name.revision(), name.file()),
                (repo, revision, file)
            );
            assert_eq!(name.to_string(), text);
        }
    }

    #[test]
    fn what_is_no_name_says_why() {
        let said: Vec<String> = [
            "model",
            "./runs/model",
            "/models/llama",
            "../model",
            "~/model",
            "C:\\models\\llama",
            "org/a--b",
            "org/na me",
            "org/",
            "org/name.git",
            "org/name@../x",
            "org/name@",
            "org/name@a b",
            "org/name:../x.gguf",
            "org/name:/etc/x.gguf",
            "org/name:",
        ]
        .iter()
        .map(|text| text.parse::<HubName>().unwrap_err().to_string())
        .collect();
        insta::assert_snapshot!(said.join("\n"), @r"
        `model` is not a name on the hub: it has no `/`
        `./runs/model` is not a name on the hub: it has more than one `/`
        `/models/llama` is not a name on the hub: it has more than one `/`
        `../model` is not a name on the hub: a part of it starts or ends with `-` or `.`
        `~/model` is not a name on the hub: it has characters other than letters, digits, `-`, `_` and `.`
        `C:\models\llama` is not a name on the hub: it has no `/`
        `org/a--b` is not a name on the hub: it has `--` or `..`
        `org/na me` is not a name on the hub: it has characters other than letters, digits, `-`, `_` and `.`
        `org/` is not a name on the hub: the part before or after the `/` is empty
        `org/name.git` is not a name on the hub: it ends with `.git`
        `org/name@../x` is not a name on the hub: its revision is not the name of a branch, a tag or a commit
        `org/name@` is not a name on the hub: its revision is not the name of a branch, a tag or a commit
        `org/name@a b` is not a name on the hub: its revision is not the name of a branch, a tag or a commit
        `org/name:../x.gguf` is not a name on the hub: its file is not a relative path
        `org/name:/etc/x.gguf` is not a name on the hub: its file is not a relative path
        `org/name:` is not a name on the hub: its file is not a relative path
        ");
    }
}
