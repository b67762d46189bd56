//! `hostile-files ATTACK`: writes a stream of files that nobody honest writes to the standard output.
//!
//! `hostile-files list` names the attacks. The scenario leads the stream to another domain's file
//! service; nothing of it may arrive.

use std::io::{self, BufWriter, Write};
use std::process::ExitCode;

use bulkhead_transfer::format::{Meta, Record, StreamWriter};
use bulkhead_transfer::{FormatError, Item, Kind, Manifest};

type Out = BufWriter<io::Stdout>;
type Attack = fn(Out) -> Result<(), FormatError>;

const ATTACKS: &[(&str, Attack)] = &[
    ("traversal", traversal),
    ("traversal-announced", traversal_announced),
    ("absolute-name", |out| {
        one_file(out, "/tmp/evil", 4, b"evil")
    }),
    ("link-out", |out| link(out, "../../../tmp")),
    ("link-absolute", |out| link(out, "/tmp")),
    ("device", device),
    ("more-than-announced", more_than_announced),
    ("million-entries", million_entries),
    ("too-many-announced", too_many_announced),
    ("longer-than-said", |out| {
        one_file(out, "evil", 4, b"evil and more")
    }),
    ("shorter-than-said", |out| {
        one_file(out, "evil", 400, b"evil")
    }),
    ("endless", endless),
    ("no-manifest", |mut out| {
        out.write_all(&[b'x'; 100_000]).map_err(FormatError::Write)
    }),
    ("cut", cut),
];

fn main() -> ExitCode {
    let name = std::env::args().nth(1).unwrap_or_default();
    if name == "list" {
        for (name, _) in ATTACKS {
            println!("{name}");
        }
        return ExitCode::SUCCESS;
    }
    let Some((_, attack)) = ATTACKS.iter().find(|(known, _)| *known == name) else {
        eprintln!("hostile-files: no attack `{name}`; see `hostile-files list`");
        return ExitCode::from(2);
    };
    // A stream that is cut off is what a defence looks like from here.
    match attack(BufWriter::new(io::stdout())) {
        Ok(()) => eprintln!("{name}: all was written"),
        Err(error) => eprintln!("{name}: {error}"),
    }
    ExitCode::SUCCESS
}

fn manifest(entries: u64, bytes: u64, kind: Kind, name: &str) -> Manifest {
    Manifest {
        entries,
        bytes,
        top_level: 1,
        shown: vec![Item {
            kind,
            bytes,
            name: name.into(),
        }],
    }
}

fn file(name: &str, size: u64) -> Record {
    Record::File {
        meta: Meta::default(),
        untrusted_name: name.into(),
        untrusted_size: size,
    }
}

fn folder(name: &str) -> Record {
    Record::Folder {
        meta: Meta::default(),
        untrusted_name: name.into(),
    }
}

fn end(entries: u64, bytes: u64) -> Record {
    Record::End {
        untrusted_entries: entries,
        untrusted_bytes: bytes,
    }
}

/// A file under another name than the one that was announced.
fn one_file(out: Out, name: &str, size: u64, data: &[u8]) -> Result<(), FormatError> {
    let announced = name.trim_start_matches('/');
    let announced = announced.rsplit('/').next().unwrap_or(announced);
    let mut writer = StreamWriter::new(out, &manifest(1, size, Kind::File, announced))?;
    writer.record(&file(name, size))?;
    writer.data(data)?;
    writer.record(&end(1, size))?;
    writer.flush()
}

fn traversal(out: Out) -> Result<(), FormatError> {
    one_file(out, "../../.profile", 4, b"evil")
}

fn traversal_announced(out: Out) -> Result<(), FormatError> {
    let mut writer = StreamWriter::new(out, &manifest(1, 4, Kind::File, "../evil"))?;
    writer.record(&file("../evil", 4))?;
    writer.data(b"evil")?;
    writer.record(&end(1, 4))?;
    writer.flush()
}

/// A link, and a file through it.
fn link(out: Out, target: &str) -> Result<(), FormatError> {
    let mut writer = StreamWriter::new(out, &manifest(4, 4, Kind::Folder, "top"))?;
    writer.record(&folder("top"))?;
    writer.record(&Record::Link {
        meta: Meta::default(),
        untrusted_name: b"way".to_vec(),
        untrusted_target: target.into(),
    })?;
    writer.record(&folder("way"))?;
    writer.record(&file("evil", 4))?;
    writer.data(b"evil")?;
    writer.record(&Record::Leave)?;
    writer.record(&Record::Leave)?;
    writer.record(&end(4, 4))?;
    writer.flush()
}

/// A record of a kind that does not exist; the format has no devices.
fn device(out: Out) -> Result<(), FormatError> {
    let mut bytes = Vec::new();
    StreamWriter::new(&mut bytes, &manifest(1, 0, Kind::File, "sda"))?.flush()?;
    bytes.extend_from_slice(&[9, 0xb0, 1, 8, 0, 0, 0]);
    bytes.extend_from_slice(b"sda");
    bytes.resize(100_000, 0);
    let mut out = out;
    out.write_all(&bytes)
        .and_then(|()| out.flush())
        .map_err(FormatError::Write)
}

fn more_than_announced(out: Out) -> Result<(), FormatError> {
    let mut writer = StreamWriter::new(out, &manifest(1, 4, Kind::File, "evil"))?;
    for name in ["evil", "evil-too"] {
        writer.record(&file(name, 4))?;
        writer.data(b"evil")?;
    }
    writer.record(&end(2, 8))?;
    writer.flush()
}

/// Announces one folder and sends a million files.
fn million_entries(out: Out) -> Result<(), FormatError> {
    let mut writer = StreamWriter::new(out, &manifest(2, 0, Kind::Folder, "evil"))?;
    writer.record(&folder("evil"))?;
    for number in 0..1_000_000 {
        writer.record(&file(&format!("{number}"), 0))?;
    }
    writer.flush()
}

fn too_many_announced(out: Out) -> Result<(), FormatError> {
    let mut writer = StreamWriter::new(out, &manifest(5_000_000, 0, Kind::Folder, "evil"))?;
    writer.record(&folder("evil"))?;
    writer.flush()
}

/// Never ends, as long as anybody takes it.
fn endless(out: Out) -> Result<(), FormatError> {
    let mut writer = StreamWriter::new(out, &manifest(1, 1 << 20, Kind::File, "evil"))?;
    writer.record(&file("evil", 1 << 20))?;
    let block = vec![0x55; 64 * 1024];
    loop {
        writer.data(&block)?;
    }
}

/// Goes away in the middle.
fn cut(out: Out) -> Result<(), FormatError> {
    let mut writer = StreamWriter::new(out, &manifest(1, 1 << 20, Kind::File, "evil"))?;
    writer.record(&file("evil", 1 << 20))?;
    writer.data(&[0x55; 1000])?;
    writer.flush()
}
