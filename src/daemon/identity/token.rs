//! `local-token` (§1.1, §3.1): what a caller on TCP must show.

use super::IdentityError;
use claudemesh_base::paths::{Paths, PathsError, write_private};
use claudemesh_base::runtime::Runtime;
use data_encoding::BASE64URL_NOPAD;
use std::fmt;
use std::fs;
use std::io::ErrorKind;
use zeroize::Zeroizing;

/// How much randomness a token holds.
pub const TOKEN_BYTES: usize = 32;

/// The local bearer token. Never printed; wiped on drop.
#[derive(Clone)]
pub struct LocalToken(Zeroizing<String>);

impl LocalToken {
    /// The token in `local-token`; `None` if there is no such file.
    ///
    /// # Errors
    /// When the file cannot be read or holds something else.
    pub fn read(paths: &Paths) -> Result<Option<Self>, IdentityError> {
        let file = paths.local_token();
        let text = match fs::read_to_string(&file) {
            Ok(text) => Zeroizing::new(text),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) if error.kind() == ErrorKind::InvalidData => {
                return Err(IdentityError::BadToken(file));
            }
            Err(error) => return Err(PathsError::io("read", &file, error).into()),
        };
        let token = text.trim_ascii();
        match BASE64URL_NOPAD.decode(token.as_bytes()).map(Zeroizing::new) {
            Ok(bytes) if bytes.len() == TOKEN_BYTES => Ok(Some(Self(Zeroizing::new(token.into())))),
            _ => Err(IdentityError::BadToken(file)),
        }
    }

    /// The token in `local-token`, made on first use.
    ///
    /// # Errors
    /// When the file cannot be read or written, or holds something else.
    pub fn read_or_create(paths: &Paths, runtime: &Runtime) -> Result<Self, IdentityError> {
        match Self::read(paths)? {
            Some(token) => Ok(token),
            None => Self::create(paths, runtime),
        }
    }

    fn create(paths: &Paths, runtime: &Runtime) -> Result<Self, IdentityError> {
        let bytes = Zeroizing::new(runtime.random::<TOKEN_BYTES>());
        let token = Self(Zeroizing::new(BASE64URL_NOPAD.encode(bytes.as_slice())));
        let line = Zeroizing::new(format!("{}\n", token.as_str()));
        write_private(&paths.local_token(), line.as_bytes())?;
        Ok(token)
    }

    /// The token itself, for an `Authorization` header.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for LocalToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn a_token_is_made_once_and_kept() {
        let dir = tempfile::tempdir().expect("a directory");
        let paths = Paths::under(dir.path()).expect("absolute");
        claudemesh_base::paths::ensure_private_dir(&paths.daemon_dir).expect("created");
        let runtime = Runtime::real(Arc::new(smol::Executor::new()));
        assert!(LocalToken::read(&paths).expect("no file").is_none());
        let first = LocalToken::read_or_create(&paths, &runtime).expect("made");
        let again = LocalToken::read_or_create(&paths, &runtime).expect("kept");
        assert_eq!(first.as_str(), again.as_str());
        let text = fs::read_to_string(paths.local_token()).expect("read");
        assert_eq!(text, format!("{}\n", first.as_str()));
        assert_eq!(text.len(), 44);
        assert_eq!(claudemesh_base::paths::readable_by_others(&paths.local_token()), None);
        assert!(!format!("{first:?}").contains(first.as_str()));
    }

    #[test]
    fn a_file_that_holds_no_token_is_refused_with_the_remedy() {
        let dir = tempfile::tempdir().expect("a directory");
        let paths = Paths::under(dir.path()).expect("absolute");
        fs::create_dir(&paths.daemon_dir).expect("created");
        for bytes in [&b""[..], b"\n", b"short", b"\xFF\xFE"] {
            fs::write(paths.local_token(), bytes).expect("written");
            let refused = LocalToken::read(&paths).expect_err("no token").to_string();
            assert!(refused.contains("delete the file"), "{refused}");
        }
    }
}
