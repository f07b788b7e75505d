//! What kind of host this is, for the one default that depends on it (§2.1): in CI and in a
//! container the daemon listens on its Unix socket alone. Pure: the host is asked through
//! arguments.

use std::ffi::OsString;
use std::path::Path;

/// Each says that this is a CI job.
const CI_VARIABLES: &[&str] =
    &["CI", "GITHUB_ACTIONS", "GITLAB_CI", "BUILDKITE", "CIRCLECI", "JENKINS_URL"];
/// Each says that this is a container.
const CONTAINER_VARIABLES: &[&str] = &["KUBERNETES_SERVICE_HOST", "CONTAINER", "RUNPOD_POD_ID"];
/// Each exists in a container alone: Docker's and Podman's.
const CONTAINER_FILES: &[&str] = &["/.dockerenv", "/run/.containerenv"];

/// A host on which loopback TCP is not ours alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HostKind {
    /// A CI job, by this variable.
    Ci(&'static str),
    /// A container, by this variable or file.
    Container(&'static str),
}

impl HostKind {
    /// What was found, in words.
    pub(super) fn words(self) -> String {
        match self {
            Self::Ci(sign) => format!("a CI job ({sign} is set)"),
            Self::Container(sign) => format!("a container ({sign})"),
        }
    }
}

/// What kind of host this is; `None` for an ordinary one.
pub(super) fn detect(
    env: &dyn Fn(&str) -> Option<OsString>,
    exists: &dyn Fn(&Path) -> bool,
) -> Option<HostKind> {
    let is_set = |name: &&&str| {
        env(name).is_some_and(|value| {
            !(value.is_empty() || value == "0" || value.eq_ignore_ascii_case("false"))
        })
    };
    let is_there = |file: &&&str| exists(Path::new(file));
    let in_ci = CI_VARIABLES.iter().find(is_set).map(|sign| HostKind::Ci(sign));
    let in_container = || {
        let variable = CONTAINER_VARIABLES.iter().find(is_set);
        variable
            .or_else(|| CONTAINER_FILES.iter().find(is_there))
            .map(|sign| HostKind::Container(sign))
    };
    in_ci.or_else(in_container)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(env: &[(&str, &str)], files: &[&str]) -> Option<HostKind> {
        let lookup =
            |name: &str| env.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into());
        detect(&lookup, &|path| files.iter().any(|file| Path::new(file) == path))
    }

    #[test]
    fn each_sign_is_understood_and_an_ordinary_host_has_none() {
        assert_eq!(found(&[("HOME", "/h"), ("CI", ""), ("CONTAINER", "0")], &[]), None);
        assert_eq!(found(&[("CI", "false")], &[]), None);
        for sign in CI_VARIABLES {
            assert_eq!(found(&[(sign, "true")], &["/.dockerenv"]), Some(HostKind::Ci(sign)));
        }
        for sign in CONTAINER_VARIABLES {
            assert_eq!(found(&[(sign, "1")], &[]), Some(HostKind::Container(sign)));
        }
        for sign in CONTAINER_FILES {
            assert_eq!(found(&[], &[sign]), Some(HostKind::Container(sign)));
        }
    }
}
