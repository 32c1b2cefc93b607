//! The files of a configuration, in the order in which they override each other.

use crate::error::{ConfigError, Issue};
use crate::files::{DEEPEST, Files, upwards};
use crate::front_matter;
use crate::mask::mask_config;
use crate::merge;
use crate::normalize;
use crate::schema;
use crate::substitute::substitute;
use crate::surroundings::Surroundings;
use jsonc_parser::ParseOptions;
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};

/// Reads and merges all layers. Later overrides earlier: the user's files, `OPENCODE_CONFIG`, the project's files from
/// the work tree's root down to the directory, the `.opencode` folders, `OPENCODE_CONFIG_CONTENT`, the
/// administrator's files, `OPENCODE_PERMISSION`.
///
/// The project's files are looked for in every parent up to the root where there is no repository, as OpenCode does.
pub(crate) fn read(
    directory: &Path,
    worktree: &Path,
    surroundings: &Surroundings,
    files: &mut Files,
) -> Result<Map<String, Value>, ConfigError> {
    let mut layers = Layers { surroundings, files, config: Map::new() };
    layers.users()?;
    if let Some(path) = &surroundings.opencode_config {
        layers.file(&directory.join(path))?;
    }
    let mut downwards: Vec<_> = upwards(directory, worktree).collect();
    downwards.reverse();
    for at in downwards {
        layers.pair(at)?;
    }
    for folder in folders(directory, worktree, surroundings) {
        // The user's own folder holds the first layer, which must not come again above the project's.
        if folder != surroundings.config_dir {
            layers.pair(&folder)?;
        }
        layers.markdown(&folder)?;
    }
    if let Some(text) = &surroundings.opencode_config_content {
        layers.text(text, Path::new("OPENCODE_CONFIG_CONTENT"), directory)?;
    }
    layers.pair(&surroundings.managed_dir)?;
    if let Some(text) = &surroundings.opencode_permission {
        layers.permission(text)?;
    }
    let username = ["USER", "LOGNAME"].iter().find_map(|name| surroundings.env.get(*name));
    normalize::whole(&mut layers.config, username.map_or("unknown", String::as_str));
    Ok(layers.config)
}

/// The user's own configuration without any project, as `GET /global/config` answers it: secrets are masked.
pub fn global_config(surroundings: &Surroundings) -> Result<Value, ConfigError> {
    let mut files = Files::default();
    let mut layers = Layers { surroundings, files: &mut files, config: Map::new() };
    layers.users()?;
    let mut config = layers.config;
    config.entry("$schema").or_insert_with(|| normalize::SCHEMA.into());
    mask_config(&mut config);
    Ok(Value::Object(config))
}

/// The folders with agents, commands and skills: the user's, `.opencode` from the directory upwards, the home's, the given one.
pub(crate) fn folders(directory: &Path, worktree: &Path, surroundings: &Surroundings) -> Vec<PathBuf> {
    let mut folders = vec![surroundings.config_dir.clone()];
    let around = upwards(directory, worktree).map(|at| at.join(".opencode"));
    let last = [surroundings.home.join(".opencode")].into_iter();
    for folder in around.chain(last).chain(surroundings.extra_config_dir().map(Path::to_owned)) {
        if !folders.contains(&folder) {
            folders.push(folder);
        }
    }
    folders
}

struct Layers<'a> {
    surroundings: &'a Surroundings,
    files: &'a mut Files,
    config: Map<String, Value>,
}

impl Layers<'_> {
    fn users(&mut self) -> Result<(), ConfigError> {
        ["config.json", "opencode.json", "opencode.jsonc"]
            .iter()
            .try_for_each(|name| self.file(&self.surroundings.config_dir.join(name)))
    }

    fn pair(&mut self, folder: &Path) -> Result<(), ConfigError> {
        self.file(&folder.join("opencode.json"))?;
        self.file(&folder.join("opencode.jsonc"))
    }

    fn file(&mut self, path: &Path) -> Result<(), ConfigError> {
        match self.content(path)? {
            Some(text) => self.text(&text, path, path.parent().unwrap_or(Path::new("/"))),
            None => Ok(()),
        }
    }

    fn content(&mut self, path: &Path) -> Result<Option<String>, ConfigError> {
        self.files.read(path).map_err(|error| ConfigError::whole(path, format!("cannot be read: {error}")))
    }

    fn text(&mut self, text: &str, source: &Path, base: &Path) -> Result<(), ConfigError> {
        let text = substitute(text, source, base, self.surroundings, self.files)?;
        let value = parse(&text, source)?;
        refuse(source, schema::check_config(&value))?;
        self.lay(value);
        Ok(())
    }

    fn lay(&mut self, value: Value) {
        if let Value::Object(mut layer) = value {
            normalize::layer(&mut layer);
            merge::layer(&mut self.config, layer);
        }
    }

    fn permission(&mut self, text: &str) -> Result<(), ConfigError> {
        let source = Path::new("OPENCODE_PERMISSION");
        let permission = parse(text, source)?;
        refuse(source, schema::check_permission(&permission))?;
        self.lay(json!({ "permission": permission }));
        Ok(())
    }

    /// The commands, agents and modes of a folder. A file's name, with the folders above it, is the name.
    fn markdown(&mut self, folder: &Path) -> Result<(), ConfigError> {
        for (kind, depth) in [("command", DEEPEST), ("agent", DEEPEST), ("mode", 1)] {
            for root in [folder.join(kind), folder.join(format!("{kind}s"))] {
                let is_markdown = |path: &Path| path.extension().is_some_and(|extension| extension == "md");
                for path in self.files.find(&root, depth, is_markdown) {
                    let name = path.strip_prefix(&root).unwrap_or(&path).with_extension("");
                    self.entry(kind, &name.to_string_lossy(), &path)?;
                }
            }
        }
        Ok(())
    }

    fn entry(&mut self, kind: &str, name: &str, path: &Path) -> Result<(), ConfigError> {
        let Some(text) = self.content(path)? else { return Ok(()) };
        let (mut fields, body) = front_matter::parse(&text);
        if kind == "command" {
            refuse(path, schema::check_command(&fields))?;
            fields.insert("template".into(), body.into());
            let name = own_name(fields.shift_remove("name"), name);
            self.lay(json!({ "command": { name: fields } }));
        } else {
            refuse(path, schema::check_agent(&fields))?;
            let name = own_name(fields.shift_remove("name"), name);
            fields.insert("name".into(), name.clone().into());
            fields.insert("prompt".into(), body.into());
            if kind == "mode" {
                fields.insert("mode".into(), "primary".into());
            }
            self.lay(json!({ "agent": { name: fields } }));
        }
        Ok(())
    }
}

/// A file may give itself another name than that of its path.
fn own_name(given: Option<Value>, path: &str) -> String {
    given.as_ref().and_then(Value::as_str).filter(|name| !name.is_empty()).unwrap_or(path).to_owned()
}

fn refuse(path: &Path, issues: Vec<Issue>) -> Result<(), ConfigError> {
    match issues.is_empty() {
        true => Ok(()),
        false => Err(ConfigError::Invalid { path: path.to_owned(), message: None, issues }),
    }
}

/// JSON with comments and trailing commas. An empty text is an empty configuration. Nesting is limited by the parser.
fn parse(text: &str, source: &Path) -> Result<Value, ConfigError> {
    let options = ParseOptions {
        allow_comments: true,
        allow_trailing_commas: true,
        allow_loose_object_property_names: false,
        allow_missing_commas: false,
        allow_single_quoted_strings: false,
        allow_hexadecimal_numbers: false,
        allow_unary_plus_numbers: false,
        allow_bare_decimal_point_numbers: false,
        allow_non_finite_numbers: false,
        allow_extended_string_escapes: false,
    };
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    match jsonc_parser::parse_to_serde_value::<Value>(text, &options) {
        Ok(Value::Null) => Ok(json!({})),
        Ok(value) => Ok(value),
        Err(error) => {
            let (line, column) = (error.line_display(), error.column_display());
            let message = format!("{} at line {line}, column {column}", error.kind());
            Err(ConfigError::Json { path: source.to_owned(), message })
        }
    }
}
