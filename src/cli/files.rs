//! Files of lines, plain or compressed by their ending: `.gz`, `.zst`.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::Path;

/// Opens a file for reading lines.
pub(super) fn open(path: &Path) -> io::Result<Box<dyn BufRead + Send>> {
    let file = File::open(path)?;
    Ok(match path.extension().and_then(|e| e.to_str()) {
        Some("gz") => Box::new(BufReader::new(flate2::read::MultiGzDecoder::new(file))),
        Some("zst") => Box::new(BufReader::new(zstd::Decoder::new(file)?)),
        _ => Box::new(BufReader::new(file)),
    })
}

/// A file being written; [`finish`](Output::finish) it, or its end may be missing.
pub(super) enum Output {
    Plain(BufWriter<File>),
    Gzip(Box<flate2::write::GzEncoder<BufWriter<File>>>),
    Zstd(zstd::Encoder<'static, BufWriter<File>>),
}

impl Output {
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        let file = BufWriter::new(File::create(path)?);
        Ok(match path.extension().and_then(|e| e.to_str()) {
            Some("gz") => Self::Gzip(Box::new(flate2::write::GzEncoder::new(file, flate2::Compression::default()))),
            Some("zst") => Self::Zstd(zstd::Encoder::new(file, 3)?),
            _ => Self::Plain(file),
        })
    }

    pub(super) fn line(&mut self, line: &str) -> io::Result<()> {
        match self {
            Self::Plain(out) => writeln!(out, "{line}"),
            Self::Gzip(out) => writeln!(out, "{line}"),
            Self::Zstd(out) => writeln!(out, "{line}"),
        }
    }

    /// Writes what is left, and waits for the disk.
    pub(super) fn finish(self) -> io::Result<()> {
        let file = match self {
            Self::Plain(out) => out,
            Self::Gzip(out) => out.finish()?,
            Self::Zstd(out) => out.finish()?,
        };
        file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
    }
}
