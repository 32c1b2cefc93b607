//! The output of a command: its end in memory, the whole of it in a file once that is too long for a model.

use crate::ToolSettings;
use crate::truncate::{preview, tail};
use std::io;
use std::path::{Path, PathBuf};
use tokio::fs::File;
use tokio::io::AsyncWriteExt;

/// About so many characters of a running command's output are shown to people.
const PREVIEW: usize = 30_000;

/// What a model gets where there is nothing.
const NOTHING: &str = "(no output)";

/// The output so far. Holds a small multiple of what a model gets, however much there is.
pub(super) struct KeptOutput {
    max_lines: usize,
    max_bytes: usize,
    max_kept_bytes: u64,
    path: PathBuf,
    /// The end of the output; the whole of it as long as there is no file.
    recent: Vec<u8>,
    file: Spill,
}

/// Where the whole output is.
enum Spill {
    /// In memory.
    NotNeeded,
    /// In a file, with so many bytes so far.
    File(File, u64),
    /// Nowhere: the file could not be written.
    Failed,
}

/// An output that will not grow any more.
pub(super) struct Finished {
    /// What the model gets.
    pub(super) text: String,
    /// It is not the whole.
    pub(super) truncated: bool,
    /// Where the whole is.
    pub(super) path: Option<PathBuf>,
}

impl KeptOutput {
    /// Nothing yet. `path` is where the file would be.
    pub(super) fn new(settings: &ToolSettings, path: PathBuf) -> Self {
        Self {
            max_lines: settings.max_lines,
            max_bytes: settings.max_bytes,
            max_kept_bytes: settings.max_kept_bytes,
            path,
            recent: Vec::new(),
            file: Spill::NotNeeded,
        }
    }

    /// Adds what was printed.
    pub(super) async fn push(&mut self, bytes: &[u8]) {
        self.recent.extend_from_slice(bytes);
        let needed = match &mut self.file {
            Spill::NotNeeded if self.recent.len() > self.max_bytes => self.spill().await,
            Spill::File(file, written) => append(file, written, bytes, self.max_kept_bytes).await,
            Spill::NotNeeded | Spill::Failed => Ok(()),
        };
        if let Err(error) = needed {
            tracing::warn!(path = %self.path.display(), %error, "the output of a command cannot be kept");
            self.file = Spill::Failed;
        }
        // Characters have up to four bytes, and trimming at twice the size makes it rare.
        let enough = self.max_bytes.max(PREVIEW * 4);
        if self.recent.len() > 2 * enough && !matches!(self.file, Spill::NotNeeded) {
            self.recent.drain(..self.recent.len() - enough);
        }
    }

    async fn spill(&mut self) -> io::Result<()> {
        tokio::fs::create_dir_all(self.path.parent().unwrap_or(Path::new("/"))).await?;
        let mut file = File::create_new(&self.path).await?;
        let mut written = 0;
        append(&mut file, &mut written, &self.recent, self.max_kept_bytes).await?;
        self.file = Spill::File(file, written);
        Ok(())
    }

    /// The end of the output, for people.
    pub(super) fn preview(&self) -> String {
        preview(&String::from_utf8_lossy(&self.recent), PREVIEW)
    }

    /// The same, or a word where there is nothing.
    pub(super) fn preview_or_nothing(&self) -> String {
        if self.recent.is_empty() { NOTHING.into() } else { self.preview() }
    }

    /// What the model gets.
    pub(super) async fn finish(&mut self) -> Finished {
        let text = String::from_utf8_lossy(&self.recent).into_owned();
        let end = tail(&text, self.max_lines, self.max_bytes);
        let whole = matches!(self.file, Spill::NotNeeded) && end.len() == text.len();
        if whole {
            let text = if text.is_empty() { NOTHING.into() } else { text };
            return Finished { text, truncated: false, path: None };
        }
        let kept = match &mut self.file {
            Spill::NotNeeded => self.spill().await,
            Spill::File(..) => Ok(()),
            Spill::Failed => Err(io::Error::other("not kept")),
        };
        if let (Ok(()), Spill::File(file, _)) = (&kept, &mut self.file) {
            // Whoever is told of the file finds all of it.
            let _ = file.flush().await;
        }
        let (place, path) = match kept {
            Ok(()) => (format!("Full output saved to: {}", self.path.display()), Some(self.path.clone())),
            Err(_) => ("The full output could not be saved.".into(), None),
        };
        Finished { text: format!("...output truncated...\n\n{place}\n\n{end}"), truncated: true, path }
    }
}

async fn append(file: &mut File, written: &mut u64, bytes: &[u8], max: u64) -> io::Result<()> {
    let room = usize::try_from(max.saturating_sub(*written)).unwrap_or(usize::MAX);
    let bytes = &bytes[..bytes.len().min(room)];
    *written += bytes.len() as u64;
    file.write_all(bytes).await
}
