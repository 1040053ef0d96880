//! Where the MLflow server is: the variables that MLflow's own client reads.
//!
//! Source: MLflow 3, `mlflow/environment_variables.py` and `mlflow/tracking/request_header`, `mlflow/utils/credentials.py`.

use simmer_checkpoint::web::base64;
use ureq::http::Uri;

use simmer_recipe::Problem;

/// The server, and how requests are authorised.
pub(super) struct Settings {
    /// The address without a slash at its end.
    pub(super) address: String,
    pub(super) uri: Uri,
    /// The value of the header `Authorization`.
    pub(super) authorization: Option<String>,
    pub(super) experiment: Experiment,
}

/// The experiment that a run belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Experiment {
    Id(String),
    /// Created if the server has none of this name.
    Name(String),
}

/// Reads the settings; `variable` is the environment.
///
/// # Errors
/// No address, or one that is not a server's.
pub(super) fn settings(variable: impl Fn(&str) -> Option<String>) -> Result<Settings, Problem> {
    let given = |name: &str| variable(name).filter(|value| !value.trim().is_empty());
    let Some(address) = given("MLFLOW_TRACKING_URI") else {
        let why = "\"mlflow\" needs the address of a server, but the environment has no MLFLOW_TRACKING_URI";
        return Err(wrong(why, &start_a_server()));
    };
    let address = address.trim().trim_end_matches('/').to_owned();
    let uri = server(&address)?;
    let user = given("MLFLOW_TRACKING_USERNAME").zip(given("MLFLOW_TRACKING_PASSWORD"));
    let authorization = match user {
        Some((user, password)) => {
            let pair = base64(format!("{user}:{password}").as_bytes());
            Some(format!("Basic {pair}"))
        }
        None => given("MLFLOW_TRACKING_TOKEN").map(|token| format!("Bearer {token}")),
    };
    let by_id = given("MLFLOW_EXPERIMENT_ID").map(Experiment::Id);
    let experiment = given("MLFLOW_EXPERIMENT_NAME").map(Experiment::Name);
    // "0" is the experiment `Default`, which every server has
    let experiment = experiment.or(by_id);
    Ok(Settings {
        address,
        uri,
        authorization,
        experiment: experiment.unwrap_or_else(|| Experiment::Id("0".to_owned())),
    })
}

/// Checks an address.
fn server(address: &str) -> Result<Uri, Problem> {
    if address.contains('@') {
        let why = "MLFLOW_TRACKING_URI has a user name or password, which would appear in messages";
        let hint = "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD instead";
        return Err(wrong(why, hint));
    }
    if address == "databricks" || address.starts_with("databricks://") {
        let why = format!("MLFLOW_TRACKING_URI is `{address}`, a name in Databricks' own settings");
        let hint = "set MLFLOW_TRACKING_URI=https://WORKSPACE, MLFLOW_TRACKING_TOKEN, and \
                    MLFLOW_EXPERIMENT_NAME=/Users/NAME/EXPERIMENT";
        return Err(wrong(&why, hint));
    }
    let uri = address.parse::<Uri>().ok();
    let is_server = |uri: &Uri| {
        matches!(uri.scheme_str(), Some("http" | "https"))
            && uri.host().is_some()
            && uri.query().is_none()
    };
    uri.filter(is_server).ok_or_else(|| {
        let why = format!(
            "MLFLOW_TRACKING_URI is `{address}`, expected the http or https address of a server"
        );
        wrong(&why, &start_a_server())
    })
}

fn start_a_server() -> String {
    "start one with `mlflow server --port 5000` (on the folder or database that you have), and set \
     MLFLOW_TRACKING_URI=http://127.0.0.1:5000"
        .to_owned()
}

fn wrong(why: &str, hint: &str) -> Problem {
    Problem::new("train.track", why).with_hint(Some(hint.to_owned()))
}

#[cfg(test)]
mod tests {
    use simmer_hint::Hint;

    use super::*;

    fn with(variables: &[(&str, &str)]) -> Result<Settings, Problem> {
        settings(|name| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn the_server_and_its_secrets_come_from_mlflows_variables() {
        let uri = ("MLFLOW_TRACKING_URI", "http://here:5000/ml/");
        let plain = with(&[uri]).unwrap();
        assert_eq!(plain.address, "http://here:5000/ml");
        assert_eq!(plain.experiment, Experiment::Id("0".to_owned()));
        assert_eq!(plain.authorization, None);
        let token = ("MLFLOW_TRACKING_TOKEN", "t");
        let with_token = with(&[uri, token]).unwrap();
        assert_eq!(with_token.authorization.as_deref(), Some("Bearer t"));
        // as in RFC 7617; MLflow prefers it to a token
        let user = [
            ("MLFLOW_TRACKING_USERNAME", "Aladdin"),
            ("MLFLOW_TRACKING_PASSWORD", "open sesame"),
            ("MLFLOW_EXPERIMENT_NAME", "kitchen"),
        ];
        let with_user = with(&[&[uri, token][..], &user[..]].concat()).unwrap();
        assert_eq!(
            with_user.authorization.as_deref(),
            Some("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==")
        );
        assert_eq!(with_user.experiment, Experiment::Name("kitchen".to_owned()));
    }

    #[test]
    fn what_is_no_server_is_refused_before_the_run() {
        let said = |address: &str| {
            let Err(problem) = with(&[("MLFLOW_TRACKING_URI", address)]) else {
                panic!("{address} is accepted");
            };
            format!("{problem}\nhint: {}", problem.hint().unwrap())
        };
        insta::assert_snapshot!(said(""), @r#"
        `train.track`: "mlflow" needs the address of a server, but the environment has no MLFLOW_TRACKING_URI
        hint: start one with `mlflow server --port 5000` (on the folder or database that you have), and set MLFLOW_TRACKING_URI=http://127.0.0.1:5000
        "#);
        insta::assert_snapshot!(said("sqlite:///mlflow.db"), @"
        `train.track`: MLFLOW_TRACKING_URI is `sqlite:///mlflow.db`, expected the http or https address of a server
        hint: start one with `mlflow server --port 5000` (on the folder or database that you have), and set MLFLOW_TRACKING_URI=http://127.0.0.1:5000
        ");
        assert!(!said("https://me:secret@here").contains("secret"));
        for address in ["mlruns", "file:///mlruns", "http://", "databricks"] {
            said(address);
        }
    }
}
