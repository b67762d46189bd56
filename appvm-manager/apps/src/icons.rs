//! Icons as pixels. A picture from a template is decoded by `bulkhead-icon`, a process for one
//! picture that can neither open a file nor reach anything; what comes back is a fixed number of
//! bytes, and any bytes are a picture.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;
use tokio::sync::Semaphore;

/// Width and height of every icon.
pub const SIZE: u16 = 48;
/// Their bytes: red, green, blue and alpha of each pixel, straight alpha.
pub const BYTES: usize = SIZE as usize * SIZE as usize * 4;
/// The worker limits its own processor time to a second; this is for one that sleeps.
const PATIENCE: Duration = Duration::from_secs(3);
/// Workers at a time.
const WORKERS: usize = 2;
/// Pictures in the cache: 36 MiB.
const MAX_CACHED: usize = 4096;
/// Pictures that are known to be none.
const MAX_FAILED: usize = 4096;

/// Pixels of one icon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    /// [`BYTES`] of them.
    pub rgba: Vec<u8>,
}

/// Why there is no picture.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // The messages say it.
pub enum IconError {
    #[error("no icon has that name; an icon's name is the SHA-256 of its file")]
    NoName,
    #[error("the icon's file is no picture that can be shown")]
    NoPicture,
    #[error("the icon's file: {0}")]
    File(io::Error),
    #[error("{program}: {source}; is it installed?", program = .program.display())]
    Worker { program: PathBuf, source: io::Error },
}

/// The icons of all templates.
#[derive(Debug)]
pub struct Icons {
    worker: PathBuf,
    cache: PathBuf,
    workers: Semaphore,
    failed: Mutex<BTreeSet<String>>,
}

/// Whether a text can be the name of an icon.
pub fn is_name(sha: &str) -> bool {
    sha.len() == 64 && sha.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

impl Icons {
    /// Decoded by the program `worker`, kept in the folder `cache`, which is made when it is
    /// needed.
    pub fn new(worker: PathBuf, cache: PathBuf) -> Self {
        Icons {
            worker,
            cache,
            workers: Semaphore::new(WORKERS),
            failed: Mutex::default(),
        }
    }

    fn failed(&self) -> std::sync::MutexGuard<'_, BTreeSet<String>> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The picture whose file has this SHA-256. `load` reads the file where the picture is not
    /// kept yet.
    pub async fn picture(
        &self,
        sha: &str,
        load: impl FnOnce() -> io::Result<Vec<u8>>,
    ) -> Result<Picture, IconError> {
        if !is_name(sha) {
            return Err(IconError::NoName);
        }
        if let Some(picture) = self.cached(sha) {
            return Ok(picture);
        }
        // What has failed once is not tried again, nor told again.
        if self.failed().contains(sha) {
            return Err(IconError::NoPicture);
        }
        let bytes = load().map_err(IconError::File)?;
        let result = {
            let _permit = self.workers.acquire().await;
            decode(&self.worker, &bytes).await
        };
        match result {
            Ok(picture) => {
                if let Err(error) = self.keep(sha, &picture) {
                    tracing::warn!(cache = %self.cache.display(), %error, "an icon is not kept");
                }
                Ok(picture)
            }
            Err(Failure::Start(source)) => Err(IconError::Worker {
                program: self.worker.clone(),
                source,
            }),
            Err(Failure::Picture(reason)) => {
                tracing::warn!(icon = sha, reason, "no icon");
                let mut failed = self.failed();
                if failed.len() >= MAX_FAILED {
                    failed.clear();
                }
                failed.insert(sha.to_owned());
                Err(IconError::NoPicture)
            }
        }
    }

    fn file(&self, sha: &str) -> PathBuf {
        self.cache.join(format!("{sha}.rgba"))
    }

    fn cached(&self, sha: &str) -> Option<Picture> {
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(self.file(sha))
            .ok()?;
        let mut rgba = Vec::with_capacity(BYTES + 1);
        file.take(BYTES as u64 + 1).read_to_end(&mut rgba).ok()?;
        (rgba.len() == BYTES).then_some(Picture { rgba })
    }

    fn keep(&self, sha: &str, picture: &Picture) -> io::Result<()> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.cache)?;
        make_room(&self.cache);
        let partial = self.cache.join(format!(".{sha}.{}", std::process::id()));
        let written = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&partial)
            .and_then(|mut file| file.write_all(&picture.rgba))
            .and_then(|()| fs::rename(&partial, self.file(sha)));
        if written.is_err() {
            let _ = fs::remove_file(&partial);
        }
        written
    }
}

/// Removes the oldest quarter of a full cache.
fn make_room(cache: &Path) {
    let mut files: Vec<_> = fs::read_dir(cache)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| {
            let age = entry.metadata().and_then(|data| data.modified()).ok();
            (age, entry.path())
        })
        .collect();
    if files.len() < MAX_CACHED {
        return;
    }
    files.sort();
    let surplus = files.len() - MAX_CACHED * 3 / 4;
    for (_, file) in files.iter().take(surplus) {
        let _ = fs::remove_file(file);
    }
}

enum Failure {
    /// The worker's program did not start.
    Start(io::Error),
    /// The worker gave no picture.
    Picture(String),
}

async fn decode(worker: &Path, untrusted_bytes: &[u8]) -> Result<Picture, Failure> {
    let mut command = Command::new(worker);
    command
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .process_group(0)
        .kill_on_drop(true);
    // SAFETY: the closure runs between fork and exec and only makes system calls with numbers.
    unsafe {
        command.pre_exec(|| {
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0 {
                return Err(io::Error::last_os_error());
            }
            // Nothing of ours may reach the worker but its three streams.
            if libc::close_range(3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC as i32) != 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(())
        });
    }
    let mut child = command.spawn().map_err(Failure::Start)?;
    let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
    let (Some(mut stdin), Some(stdout)) = (stdin, stdout) else {
        return Err(Failure::Picture("its streams are missing".to_owned()));
    };
    let exchange = async {
        let mut rgba = Vec::with_capacity(BYTES + 1);
        let mut stdout = stdout.take(BYTES as u64 + 1);
        let feed = async {
            // A worker that has seen enough closes its end.
            let _ = stdin.write_all(untrusted_bytes).await;
            drop(stdin);
        };
        let ((), read) = futures_util::future::join(feed, stdout.read_to_end(&mut rgba)).await;
        read.map(|_| rgba)
    };
    let rgba = match tokio::time::timeout(PATIENCE, exchange).await {
        Ok(Ok(rgba)) => rgba,
        Ok(Err(error)) => return Err(Failure::Picture(error.to_string())),
        Err(_) => return Err(Failure::Picture("it took too long".to_owned())),
    };
    let status = match tokio::time::timeout(PATIENCE, child.wait()).await {
        Ok(Ok(status)) => status,
        Ok(Err(error)) => return Err(Failure::Picture(error.to_string())),
        Err(_) => return Err(Failure::Picture("its worker does not end".to_owned())),
    };
    if status.success() && rgba.len() == BYTES {
        Ok(Picture { rgba })
    } else {
        Err(Failure::Picture(format!("its worker ended: {status}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worker(dir: &Path, script: &str) -> Icons {
        let program = dir.join("worker");
        fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(&program, mode).unwrap();
        Icons::new(program, dir.join("cache"))
    }

    const SHA: &str = "00000000000000000000000000000000000000000000000000000000000000aa";

    fn run<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
            .block_on(future)
    }

    #[test]
    fn a_picture_is_made_once() {
        let dir = tempfile::tempdir().unwrap();
        let icons = worker(dir.path(), "cat; head -c 9215 /dev/zero");
        let load = || Ok(b"x".to_vec());
        let picture = run(icons.picture(SHA, load)).unwrap();
        assert_eq!((picture.rgba.len(), picture.rgba[0]), (BYTES, b'x'));
        let again = run(icons.picture(SHA, || Err(io::Error::other("not read again"))));
        assert_eq!(again.unwrap(), picture);
        // A file of the cache that is not whole is none.
        fs::write(icons.file(SHA), "short").unwrap();
        assert!(run(icons.picture(SHA, load)).is_ok());
    }

    #[test]
    fn a_worker_that_misbehaves_gives_no_picture_and_is_asked_once() {
        for script in [
            "exit 1",
            "head -c 9216 /dev/zero; exit 3",
            "head -c 9215 /dev/zero",
            "cat /dev/zero",
            "kill -SEGV $$",
            "echo run >> $0.log; exit 1",
        ] {
            let dir = tempfile::tempdir().unwrap();
            let icons = worker(dir.path(), script);
            for _ in 0..3 {
                let result = run(icons.picture(SHA, || Ok(vec![b'x'; 300_000])));
                assert!(matches!(result, Err(IconError::NoPicture)), "{script}");
            }
            if let Ok(log) = fs::read_to_string(dir.path().join("worker.log")) {
                assert_eq!(log, "run\n");
            }
        }
    }

    #[test]
    fn a_worker_that_sleeps_is_ended() {
        let dir = tempfile::tempdir().unwrap();
        let icons = worker(dir.path(), "exec sleep 1000");
        let start = std::time::Instant::now();
        assert!(run(icons.picture(SHA, || Ok(Vec::new()))).is_err());
        assert!(start.elapsed() < PATIENCE * 3);
    }

    #[test]
    fn names_are_digests() {
        let dir = tempfile::tempdir().unwrap();
        let icons = worker(dir.path(), "exit 1");
        for bad in ["", "../../etc/passwd", &"A".repeat(64), &SHA[1..]] {
            let result = run(icons.picture(bad, || Ok(Vec::new())));
            assert!(matches!(result, Err(IconError::NoName)), "{bad}");
        }
    }

    #[test]
    fn the_cache_is_bounded() {
        let dir = tempfile::tempdir().unwrap();
        for number in 0..MAX_CACHED + 10 {
            fs::write(dir.path().join(number.to_string()), "").unwrap();
        }
        make_room(dir.path());
        assert_eq!(
            fs::read_dir(dir.path()).unwrap().count(),
            MAX_CACHED * 3 / 4
        );
    }
}
