//! What lies around every directory: the user's folders, and what the process was told.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};

/// Everything that a configuration depends on besides the directory itself. Nothing here is read from the process.
#[derive(Clone)]
pub struct Surroundings {
    /// The user's home: `~/` in patterns and paths.
    pub home: PathBuf,
    /// The user's own configuration, usually `~/.config/opencode`.
    pub config_dir: PathBuf,
    /// Where the server keeps its data; agents may read the tool output below it.
    pub data_dir: PathBuf,
    /// Where clients keep small things such as the last used models, usually `~/.local/state/opencode`.
    pub state_dir: PathBuf,
    /// The administrator's configuration, which overrides the user's; usually `/etc/opencode`.
    pub managed_dir: PathBuf,
    /// The environment: for `{env:NAME}` and for the keys of well-known providers.
    pub env: HashMap<String, String>,
    /// `OPENCODE_CONFIG`: one more configuration file.
    pub opencode_config: Option<PathBuf>,
    /// `OPENCODE_CONFIG_CONTENT`: one more configuration, as text.
    pub opencode_config_content: Option<String>,
    /// `OPENCODE_PERMISSION`: permission rules that come last.
    pub opencode_permission: Option<String>,
    /// Offer the built-in provider that has no model behind it.
    pub demo: bool,
}

impl Surroundings {
    /// The surroundings that an environment describes, by the XDG rules and OpenCode's own variables.
    pub fn new(env: HashMap<String, String>, data_dir: PathBuf, demo: bool) -> Self {
        let get = |name: &str| env.get(name).filter(|value| !value.is_empty());
        let home = get("HOME").map_or_else(|| PathBuf::from("/"), PathBuf::from);
        let folder = |name: &str, default: &str| get(name).map_or_else(|| home.join(default), PathBuf::from);
        Self {
            config_dir: folder("XDG_CONFIG_HOME", ".config").join("opencode"),
            state_dir: folder("XDG_STATE_HOME", ".local/state").join("opencode"),
            managed_dir: PathBuf::from("/etc/opencode"),
            opencode_config: get("OPENCODE_CONFIG").map(PathBuf::from),
            opencode_config_content: get("OPENCODE_CONFIG_CONTENT").cloned(),
            opencode_permission: get("OPENCODE_PERMISSION").cloned(),
            data_dir,
            demo,
            home,
            env,
        }
    }

    /// One more folder that is read like `.opencode`: `OPENCODE_CONFIG_DIR`.
    pub(crate) fn extra_config_dir(&self) -> Option<&Path> {
        self.env.get("OPENCODE_CONFIG_DIR").filter(|dir| !dir.is_empty()).map(Path::new)
    }

    /// The folder for temporary files that agents may use without being asked.
    pub(crate) fn temporary_dir(&self) -> PathBuf {
        let base = self.env.get("TMPDIR").filter(|dir| !dir.is_empty());
        base.map_or_else(|| PathBuf::from("/tmp"), PathBuf::from).join("opencode")
    }

    /// Expands a leading `~/` or `$HOME`.
    pub(crate) fn expand_home(&self, text: &str) -> String {
        let home = self.home.to_string_lossy();
        for sign in ["~", "$HOME"] {
            match text.strip_prefix(sign) {
                Some(rest) if rest.is_empty() || rest.starts_with('/') => return format!("{home}{rest}"),
                _ => {}
            }
        }
        text.to_owned()
    }
}

impl fmt::Debug for Surroundings {
    /// Shows the folders only: the environment and the given texts may hold keys.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Surroundings")
            .field("home", &self.home)
            .field("config_dir", &self.config_dir)
            .field("data_dir", &self.data_dir)
            .field("state_dir", &self.state_dir)
            .field("managed_dir", &self.managed_dir)
            .field("demo", &self.demo)
            .finish_non_exhaustive()
    }
}
