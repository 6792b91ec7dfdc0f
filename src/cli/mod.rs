//! The command line: arguments → request → answer → text.

mod args;
#[cfg(test)]
mod samples;
mod stats;
mod tables;
mod templates;

use controlplane::api::{self, Done, FlowList, Forgotten, ServiceStatus, Stats, Status, TemplateList, code};
use controlplane::client::{Client, ClientError};
use serde::de::DeserializeOwned;
use serde_json::Value;

pub use args::Arguments;
use args::{BackendCommand, Command, PersistenceCommand, ServiceCommand};

/// Why a command failed.
#[derive(Debug)]
pub enum Failure {
    /// Options do not fit each other.
    Usage(String),
    /// The call failed.
    Call(ClientError),
    /// The answer is of another form than this version knows.
    Answer(serde_json::Error),
    /// The service that the command names is not there.
    NoService(config::words::ServiceKey),
    /// Standard output could not be written.
    Output(std::io::Error),
}

impl Failure {
    /// 1 failed, 2 wrong usage (as clap has it), 3 configuration invalid, 4 daemon unreachable, 5 denied.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::Call(ClientError::Api(error)) if error.code == code::INVALID_CONFIG => 3,
            Self::Call(ClientError::Unreachable { .. }) => 4,
            Self::Call(ClientError::Denied { .. }) => 5,
            Self::Call(_) | Self::Answer(_) | Self::NoService(_) | Self::Output(_) => 1,
        }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Usage(what) => f.write_str(what),
            Self::Call(error) => write!(f, "{error}"),
            Self::Answer(error) => write!(
                f,
                "the answer makes no sense; {error}; use trutina and trutinad of the same version, or --json"
            ),
            Self::NoService(key) => {
                write!(
                    f,
                    "there is no service {key}; it was not added or is removed; try `trutina service list`"
                )
            }
            Self::Output(error) => write!(f, "cannot write the answer; {error}; give it another output"),
        }
    }
}

/// Executes the command; the answer is what is to be printed.
///
/// # Errors
/// If there is no daemon, or it refuses.
pub fn run(arguments: &Arguments) -> Result<String, Failure> {
    let request = arguments.command.request().map_err(Failure::Usage)?;
    let mut client = Client::connect(&arguments.socket).map_err(Failure::Call)?;
    let answer: Value = client.call(&request).map_err(Failure::Call)?;
    if arguments.json {
        return Ok(format!("{answer:#}\n"));
    }
    render(&arguments.command, answer)
}

/// The answer to a command as people read it.
fn render(command: &Command, answer: Value) -> Result<String, Failure> {
    Ok(match command {
        Command::Status => tables::status(&read::<Status>(answer)?),
        Command::Service(ServiceCommand::List) => tables::services(&read::<Vec<ServiceStatus>>(answer)?),
        Command::Backend(BackendCommand::List { service }) => {
            let mut services = read::<Vec<ServiceStatus>>(answer)?;
            if let Some(key) = service {
                services.retain(|found| found.service == *key);
                if services.is_empty() {
                    return Err(Failure::NoService(*key));
                }
            }
            tables::backends(&services)
        }
        Command::Flow(_) => tables::flows(&read::<FlowList>(answer)?),
        Command::Persistence(PersistenceCommand::List { .. }) => {
            templates::templates(&read::<TemplateList>(answer)?)
        }
        Command::Persistence(PersistenceCommand::Flush { .. }) => {
            templates::forgotten(read::<Forgotten>(answer)?)
        }
        Command::Stats => stats::stats(&read::<Stats>(answer)?),
        Command::Drops { all } => stats::drops(&read::<Vec<api::Drop>>(answer)?, *all),
        Command::Stop => "trutinad is stopping\n".to_owned(),
        Command::Service(_) | Command::Backend(_) | Command::Reload => {
            format!("generation {} is in force\n", read::<Done>(answer)?.generation)
        }
    })
}

fn read<T: DeserializeOwned>(answer: Value) -> Result<T, Failure> {
    serde_json::from_value(answer).map_err(Failure::Answer)
}

#[cfg(test)]
mod tests {
    use api::ApiError;
    use clap::Parser as _;
    use serde_json::json;

    use super::*;

    fn rendered(line: &str, answer: Value) -> Result<String, Failure> {
        let arguments = Arguments::try_parse_from(line.split_whitespace()).unwrap();
        render(&arguments.command, answer)
    }

    #[test]
    fn changes_say_which_generation_holds_them() {
        for line in [
            "trutina reload",
            "trutina service remove tcp:192.0.2.1:80",
            "trutina backend set tcp:192.0.2.1:80 198.51.100.7:80 --weight 0",
        ] {
            assert_eq!(rendered(line, json!({"generation": 7})).unwrap(), "generation 7 is in force\n");
        }
        assert_eq!(rendered("trutina stop", json!({"generation": 7})).unwrap(), "trutinad is stopping\n");
    }

    #[test]
    fn the_backends_of_a_service_that_is_not_there_are_an_error() {
        let failure = rendered("trutina backend list tcp:192.0.2.1:80", json!([])).unwrap_err();
        assert_eq!(failure.exit_code(), 1);
        assert!(failure.to_string().starts_with("there is no service tcp:192.0.2.1:80; "));
    }

    #[test]
    fn an_answer_of_another_form_is_an_error() {
        let failure = rendered("trutina status", json!({"version": 7})).unwrap_err();
        assert!(failure.to_string().starts_with("the answer makes no sense; "));
    }

    #[test]
    fn exit_codes_tell_failures_apart() {
        let api = |code| Failure::Call(ClientError::Api(ApiError { code, message: String::new() }));
        let path = std::path::PathBuf::from("/run/trutina.sock");
        let source = std::io::ErrorKind::NotFound.into();
        assert_eq!(api(code::NOT_FOUND).exit_code(), 1);
        assert_eq!(Failure::Usage(String::new()).exit_code(), 2);
        assert_eq!(api(code::INVALID_CONFIG).exit_code(), 3);
        assert_eq!(Failure::Call(ClientError::Unreachable { path: path.clone(), source }).exit_code(), 4);
        assert_eq!(Failure::Call(ClientError::Denied { path }).exit_code(), 5);
    }
}
