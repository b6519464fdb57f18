//! From a request to the answer, on a thread that may block: one trip for what is small.

use std::ffi::OsStr;
use std::fs::{File, Metadata};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::ops::Range;
use std::path::Path;
use std::time::SystemTime;

use hawksbill_core::{Body, Error, Kind, Mount, Side};
use http::header::{ACCEPT_RANGES, ALLOW, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, LOCATION, RANGE};
use http::request::Parts;
use http::{HeaderValue, Method, Response, StatusCode};
use rustix::io::Errno;

use super::body::{Piece, body, total};
use super::conditional::{Validators, Verdict};
use super::open::Root;
use super::path::FilePath;
use super::range::{Selection, select};

const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, OPTIONS");

/// A directory as it is served.
pub(super) struct Served {
    pub(super) root: Root,
    pub(super) index: Vec<String>,
}

/// A regular file that is to be sent.
struct Found {
    file: File,
    metadata: Metadata,
    content_type: HeaderValue,
}

impl Served {
    pub(super) fn answer(&self, request: &Parts) -> Result<Response<Body>, Error> {
        if request.method == Method::OPTIONS {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::NO_CONTENT;
            response.headers_mut().insert(ALLOW, METHODS);
            return Ok(response);
        }
        if request.method != Method::GET && request.method != Method::HEAD {
            let error = Error::new(Kind::MethodNotAllowed).header(ALLOW, METHODS);
            return Err(error.because(format!("files: {} is not taken", request.method)));
        }
        let whole = request.uri.path();
        let path =
            FilePath::parse(request.extensions.get::<Mount>().map_or(whole, |mount| mount.split(whole).1))?;
        if path.directory {
            return self.index_of(&path)?.answer(request);
        }
        let (file, metadata) = self.open(path.relative())?;
        if metadata.is_dir() {
            self.index_of(&path)?;
            return redirect_into(request);
        }
        if !metadata.is_file() {
            return Err(not_found(format!("files: {} is no regular file", self.full(path.relative()))));
        }
        Found::new(file, metadata, path.relative()).answer(request)
    }

    fn open(&self, relative: &OsStr) -> Result<(File, Metadata), Error> {
        self.root.open(relative).map_err(|error| self.refused(relative, error))
    }

    fn index_of(&self, directory: &FilePath) -> Result<Found, Error> {
        for name in &self.index {
            let relative = directory.child(name);
            match self.root.open(&relative) {
                Ok((_, metadata)) if !metadata.is_file() => {}
                Ok((file, metadata)) => return Ok(Found::new(file, metadata, &relative)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(self.refused(&relative, error)),
            }
        }
        Err(not_found(format!("files: {} has no index", self.full(directory.relative()))))
    }

    fn refused(&self, relative: &OsStr, error: io::Error) -> Error {
        let (kind, side) = match Errno::from_io_error(&error) {
            // ENXIO is what a socket gives.
            Some(
                Errno::NOENT
                | Errno::NOTDIR
                | Errno::LOOP
                | Errno::XDEV
                | Errno::NAMETOOLONG
                | Errno::NXIO
                | Errno::NODEV,
            ) => (Kind::NotFound, Side::Client),
            Some(Errno::ACCESS | Errno::PERM) => (Kind::Forbidden, Side::Client),
            Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM) => (Kind::Overloaded, Side::Gateway),
            _ => (Kind::Internal, Side::Gateway),
        };
        Error::new(kind).at(side).because(format!("files: {}", self.full(relative))).caused_by(error)
    }

    /// A file's whole path as it goes into the log, where a name must not begin a line of its own.
    fn full(&self, relative: &OsStr) -> String {
        self.root.path().join(relative).display().to_string().escape_debug().to_string()
    }
}

fn not_found(reason: String) -> Error {
    Error::new(Kind::NotFound).because(reason)
}

/// Sends a client from a directory to the same path with a slash at its end. Leading slashes become one: `//host` would
/// be another server's address.
fn redirect_into(request: &Parts) -> Result<Response<Body>, Error> {
    let query = request.uri.query().map_or(String::new(), |query| format!("?{query}"));
    let location = format!("/{}/{query}", request.uri.path().trim_start_matches('/'));
    let location = HeaderValue::try_from(location).map_err(|error| {
        Error::new(Kind::BadRequest).because("files: no address to redirect to").caused_by(error)
    })?;
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
    response.headers_mut().insert(LOCATION, location);
    response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(0));
    Ok(response)
}

impl Found {
    fn new(file: File, metadata: Metadata, relative: &OsStr) -> Self {
        Self { file, metadata, content_type: content_type(relative) }
    }

    /// Answers a GET or HEAD.
    fn answer(self, request: &Parts) -> Result<Response<Body>, Error> {
        let validators = Validators::of(&self.metadata, SystemTime::now());
        let verdict = validators.check(&request.headers);
        let mut response = match verdict {
            Verdict::Failed => empty(StatusCode::PRECONDITION_FAILED),
            Verdict::NotModified => empty(StatusCode::NOT_MODIFIED),
            Verdict::Proceed => {
                // Ranges are defined for GET alone (section 14.2).
                let range = request.headers.get(RANGE).filter(|_| request.method == Method::GET);
                let range = range.filter(|_| validators.range_counts(&request.headers));
                self.content(range, request.method == Method::HEAD)?
            }
        };
        if verdict != Verdict::Failed {
            validators.write(response.headers_mut());
        }
        Ok(response)
    }

    fn content(self, range: Option<&HeaderValue>, head: bool) -> Result<Response<Body>, Error> {
        let size = self.metadata.len();
        let mut response = Response::new(Body::empty());
        let headers = response.headers_mut();
        headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        let pieces = match range.map_or(Selection::Whole, |range| select(range.as_bytes(), size)) {
            Selection::Whole => {
                headers.insert(CONTENT_TYPE, self.content_type);
                vec![Piece::File(0..size)]
            }
            Selection::One(range) => {
                headers.insert(CONTENT_TYPE, self.content_type);
                headers.insert(CONTENT_RANGE, header(content_range(&range, size))?);
                *response.status_mut() = StatusCode::PARTIAL_CONTENT;
                vec![Piece::File(range)]
            }
            Selection::Several(ranges) => {
                let boundary = boundary();
                headers.insert(CONTENT_TYPE, header(format!("multipart/byteranges; boundary={boundary}"))?);
                *response.status_mut() = StatusCode::PARTIAL_CONTENT;
                multipart(&ranges, size, &self.content_type, &boundary)
            }
            Selection::Unsatisfiable => {
                let unsatisfied = header(format!("bytes */{size}"))?;
                let error = Error::new(Kind::RangeNotSatisfiable).header(CONTENT_RANGE, unsatisfied);
                return Err(error.because(format!("files: no range of {range:?} lies in {size} bytes")));
            }
        };
        response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(total(&pieces)));
        if !head {
            *response.body_mut() = body(self.file, pieces)?;
        }
        Ok(response)
    }
}

fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

fn header(text: String) -> Result<HeaderValue, Error> {
    HeaderValue::try_from(text).map_err(|error| Error::new(Kind::Internal).because("files").caused_by(error))
}

fn content_range(range: &Range<u64>, size: u64) -> String {
    format!("bytes {}-{}/{size}", range.start, range.end - 1)
}

/// The parts of RFC 9110 section 14.6.
fn multipart(ranges: &[Range<u64>], size: u64, content_type: &HeaderValue, boundary: &str) -> Vec<Piece> {
    let content_type = content_type.to_str().unwrap_or("application/octet-stream");
    let mut pieces = Vec::with_capacity(2 * ranges.len() + 1);
    let mut line_end = "";
    for range in ranges {
        let head = format!(
            "{line_end}--{boundary}\r\nContent-Type: {content_type}\r\nContent-Range: {}\r\n\r\n",
            content_range(range, size)
        );
        pieces.push(Piece::Text(head.into()));
        pieces.push(Piece::File(range.clone()));
        line_end = "\r\n";
    }
    pieces.push(Piece::Text(format!("\r\n--{boundary}--\r\n").into()));
    pieces
}

/// A line that no file has in it, since nobody can know it beforehand.
fn boundary() -> String {
    let random = || RandomState::new().build_hasher().finish();
    format!("{:016x}{:016x}", random(), random())
}

/// The media type by the file's extension. Text is taken to be UTF-8, as the web's default is not.
fn content_type(relative: &OsStr) -> HeaderValue {
    let path = Path::new(relative);
    let known = corrected(path).or_else(|| mime_guess::from_path(path).first_raw());
    let name = known.unwrap_or("application/octet-stream");
    let text = name.starts_with("text/") || name.ends_with("javascript") || name.ends_with("json");
    match text.then(|| HeaderValue::try_from(format!("{name}; charset=utf-8"))) {
        Some(Ok(value)) => value,
        _ => HeaderValue::from_static(name),
    }
}

/// What the table of extensions lacks or has by an old name (RFC 9239).
fn corrected(path: &Path) -> Option<&'static str> {
    let extension = path.extension()?;
    let is = |names: &[&str]| names.iter().any(|name| extension.eq_ignore_ascii_case(name));
    if is(&["mjs", "cjs"]) {
        Some("text/javascript")
    } else if is(&["map"]) {
        Some("application/json")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_types() {
        for (name, expected) in [
            ("a/index.html", "text/html; charset=utf-8"),
            ("x.css", "text/css; charset=utf-8"),
            ("x.js", "text/javascript; charset=utf-8"),
            ("x.mjs", "text/javascript; charset=utf-8"),
            ("x.json", "application/json; charset=utf-8"),
            ("x.js.map", "application/json; charset=utf-8"),
            ("site.webmanifest", "application/manifest+json; charset=utf-8"),
            ("x.svg", "image/svg+xml"),
            ("x.PNG", "image/png"),
            ("x.avif", "image/avif"),
            ("x.webp", "image/webp"),
            ("favicon.ico", "image/x-icon"),
            ("x.woff2", "font/woff2"),
            ("x.wasm", "application/wasm"),
            ("x.mp4", "video/mp4"),
            ("x.pdf", "application/pdf"),
            ("x.tar.gz", "application/gzip"),
            ("README", "application/octet-stream"),
            ("x.unheard-of", "application/octet-stream"),
        ] {
            assert_eq!(content_type(OsStr::new(name)), expected, "{name}");
        }
    }
}
