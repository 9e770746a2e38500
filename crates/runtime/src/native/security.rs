//! `dockerSecurityOptions`, read as Docker reads `--security-opt`.
//! <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_ContainerDefinition.html> (`dockerSecurityOptions`)

/// What the options come to.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct SecurityOptions {
    /// Programs that belong to another user give nobody that user's rights.
    pub no_new_privileges: bool,
    /// No seccomp filter.
    pub seccomp_unconfined: bool,
    /// An AppArmor profile that this machine's kernel shall hold the program to.
    pub apparmor: Option<String>,
}

/// Which security modules the kernel has in force.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Modules {
    /// AppArmor.
    pub apparmor: bool,
    /// SELinux.
    pub selinux: bool,
}

impl Modules {
    /// Looks at this machine.
    pub fn detect() -> Modules {
        let apparmor = std::fs::read_to_string("/sys/module/apparmor/parameters/enabled").is_ok_and(|text| text.trim() == "Y");
        Modules { apparmor, selinux: std::path::Path::new("/sys/fs/selinux/enforce").exists() }
    }
}

/// Reads the options. A later one takes the place of an earlier one.
///
/// # Errors
/// The text names the member and the option that is unknown, or that this machine cannot honour.
pub fn parse(options: &[String], modules: Modules) -> Result<SecurityOptions, String> {
    let mut all = SecurityOptions::default();
    for option in options {
        let invalid = || format!("dockerSecurityOptions: invalid --security-opt: {option:?}");
        let cannot = |why: &str| Err(format!("dockerSecurityOptions: {option:?} cannot be honoured: {why}"));
        if option == "no-new-privileges" {
            all.no_new_privileges = true;
            continue;
        }
        // The old separator counts only where the new one is nowhere.
        let separator = if option.contains('=') { '=' } else { ':' };
        let (name, value) = option.split_once(separator).ok_or_else(invalid)?;
        match (name, value) {
            ("no-new-privileges", value) => all.no_new_privileges = parse_bool(value).ok_or_else(invalid)?,
            ("seccomp", "unconfined") => all.seccomp_unconfined = true,
            ("seccomp", "builtin") => all.seccomp_unconfined = false,
            ("seccomp", _) => return cannot("this runtime has no seccomp profile but its own"),
            ("apparmor", "unconfined" | "") => all.apparmor = None,
            ("apparmor", profile) if modules.apparmor => all.apparmor = Some(profile.to_owned()),
            ("apparmor", _) => return cannot("AppArmor is not enabled on this machine"),
            // Without SELinux Docker, too, takes labels for granted.
            ("label", value) if value == "disable" || !modules.selinux => {}
            ("label", _) => return cannot("this runtime sets no SELinux labels"),
            _ => return Err(invalid()),
        }
    }
    Ok(all)
}

/// As Go's `strconv.ParseBool`.
fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(options: &[&str], modules: Modules) -> Result<SecurityOptions, String> {
        parse(&options.iter().map(|option| (*option).to_owned()).collect::<Vec<_>>(), modules)
    }

    const NONE: Modules = Modules { apparmor: false, selinux: false };
    const BOTH: Modules = Modules { apparmor: true, selinux: true };

    #[test]
    fn what_docker_knows_is_known() {
        for option in ["no-new-privileges", "no-new-privileges:true", "no-new-privileges=1"] {
            assert!(read(&[option], NONE).unwrap().no_new_privileges, "{option}");
        }
        assert!(!read(&["no-new-privileges", "no-new-privileges:false"], NONE).unwrap().no_new_privileges);
        for option in ["seccomp=unconfined", "seccomp:unconfined"] {
            assert!(read(&[option], NONE).unwrap().seccomp_unconfined, "{option}");
        }
        assert_eq!(read(&["label:disable", "label=user:USER", "apparmor:unconfined"], NONE), Ok(SecurityOptions::default()));
        assert_eq!(read(&["apparmor:web"], BOTH).unwrap().apparmor.as_deref(), Some("web"));
    }

    #[test]
    fn what_cannot_be_is_named() {
        assert!(read(&["apparmor:web"], NONE).unwrap_err().starts_with("dockerSecurityOptions: \"apparmor:web\" cannot be honoured"));
        assert!(read(&["label:type:x"], BOTH).unwrap_err().contains("label:type:x"));
        assert!(read(&["seccomp={}"], NONE).unwrap_err().contains("seccomp profile"));
        for option in ["fly", "fly:high", "no-new-privileges:maybe", "credentialspec:file://x"] {
            assert_eq!(read(&[option], NONE).unwrap_err(), format!("dockerSecurityOptions: invalid --security-opt: {option:?}"));
        }
    }
}
