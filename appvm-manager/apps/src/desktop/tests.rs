use super::*;

fn entry(lines: &str) -> Result<Option<Entry>, EntryError> {
    parse(format!("[Desktop Entry]\nType=Application\n{lines}").as_bytes())
}

#[test]
fn an_ordinary_file() {
    let text = "# A comment\n\n[Desktop Entry]\nVersion=1.0\nType=Application\nName=Mousepad\n\
        Name[de]=Mauspolster\nGenericName=Text Editor\nComment=Simple\\sText Editor\r\n\
        Icon=org.xfce.mousepad\nExec=mousepad %U\nTerminal=false\n\
        Categories=Utility;TextEditor;GTK;\nKeywords=text;editor;a\\;b;\nMimeType=text/plain;\n\
        Actions=new;\n\n[Desktop Action new]\nName=New\nExec=mousepad -o window\n";
    let entry = parse(text.as_bytes()).unwrap().unwrap();
    assert_eq!(
        entry,
        Entry {
            name: "Mousepad".into(),
            generic_name: "Text Editor".into(),
            comment: "Simple Text Editor".into(),
            keywords: ["text", "editor", "a;b"].map(String::from).into(),
            categories: ["Utility", "TextEditor", "GTK"].map(String::from).into(),
            icon: Some("org.xfce.mousepad".into()),
            exec: vec!["mousepad".into()],
            terminal: false,
        }
    );
}

#[test]
fn what_is_not_to_be_shown_is_not() {
    for line in [
        "NoDisplay=true",
        "Hidden=true",
        "OnlyShowIn=XFCE;GNOME;",
        "NotShowIn=KDE;Bulkhead;",
    ] {
        assert_eq!(
            entry(&format!("Name=x\nExec=x\n{line}")),
            Ok(None),
            "{line}"
        );
    }
    for line in [
        "NoDisplay=false",
        "OnlyShowIn=XFCE;Bulkhead;",
        "NotShowIn=XFCE",
    ] {
        assert!(
            entry(&format!("Name=x\nExec=x\n{line}")).unwrap().is_some(),
            "{line}"
        );
    }
    let link = b"[Desktop Entry]\nType=Link\nName=x\nURL=http://x";
    assert_eq!(parse(link), Ok(None));
}

#[test]
fn only_english_counts() {
    let name = |lines: &str| entry(&format!("{lines}\nExec=x")).unwrap().unwrap().name;
    assert_eq!(name("Name=a\nName[de]=b\nName[fr]=c"), "a");
    assert_eq!(name("Name[en]=b\nName=a"), "b");
    assert_eq!(name("Name=a\nName[C]=b"), "b");
    assert_eq!(
        entry("Name[de]=x\nExec=x"),
        Err(EntryError::Missing("Name"))
    );
}

#[test]
fn names_cannot_mislead() {
    let long = "x".repeat(5000);
    for (given, shown) in [
        ("Firefox\u{202e}gnp.exe", "Firefox gnp.exe"),
        ("\u{2066}Bank\u{2069}", "Bank"),
        ("a\\nb\\tc", "a b c"),
        ("Zalgo\u{301}\u{302}\u{303}", "Zalgo"),
        (&long, &long[..80]),
    ] {
        let entry = entry(&format!("Name={given}\nExec=x\nComment={given}"))
            .unwrap()
            .unwrap();
        assert_eq!(entry.name, shown);
        assert!(entry.comment.chars().count() <= 200);
    }
    assert_eq!(
        entry("Name=\u{200b}\u{202e}\nExec=x"),
        Err(EntryError::Missing("Name"))
    );
    assert_eq!(entry("Name= \nExec=x"), Err(EntryError::Missing("Name")));
}

#[test]
fn no_icon_is_a_path() {
    for bad in [
        "/",
        "/usr/share/../../x.png",
        "/usr/share/",
        "../../../etc/passwd",
        "..",
        ".hidden",
        "a/b",
        "a\\b",
        "",
        "x\u{202e}y",
        "a b",
        "-rf",
        &"x".repeat(129),
    ] {
        assert_eq!(icon_name(bad), None, "{bad:?}");
        assert_eq!(
            entry(&format!("Name=x\nExec=x\nIcon={bad}"))
                .unwrap()
                .unwrap()
                .icon,
            None
        );
    }
    assert_eq!(icon_name("foot").unwrap(), "foot");
    assert_eq!(icon_name("/usr/share/pixmaps/x.png").unwrap(), "x");
    assert_eq!(icon_name("org.x.App-1_2+3.png").unwrap(), "org.x.App-1_2+3");
}

#[test]
fn what_is_not_right_is_refused_as_a_whole() {
    use EntryError::*;
    for (text, expected) in [
        ("Name=x", Missing("Exec")),
        ("Exec=x", Missing("Name")),
        ("Name=x\nName=y\nExec=x", Repeated(4)),
        ("Name=x\nExec=x\n[Desktop Entry]\nExec=reboot", Repeated(5)),
        ("Name=x\nExec=x\nrubbish", Line(5)),
        ("Name=x\nExec=x\nNa me=x", Line(5)),
        ("Name=x\nExec=x\nName[de=x", Line(5)),
        ("Name=x\nExec=x\n[Open", Line(5)),
        ("Name=x\nExec=x\nTerminal=maybe", NotBool("Terminal")),
        ("Name=x\nExec=x\nTryExec=../x", TryExec),
        ("Name=x\nExec=../../bin/x", Exec(ExecError::Program)),
        ("Name=x\nExec=x\\ny", Exec(ExecError::Reserved('\n'))),
    ] {
        assert_eq!(entry(text), Err(expected), "{text:?}");
    }
    assert_eq!(parse(b""), Err(NoGroup));
    assert_eq!(parse(b"Name=x\n[Desktop Entry]"), Err(NoGroup));
    assert_eq!(parse(b"[Other]\n[Desktop Entry]\nName=x"), Err(NoGroup));
    assert_eq!(parse(b"[Desktop Entry]\nName=\xff"), Err(NotText));
    assert_eq!(parse(b"[Desktop Entry]\nName=\0"), Err(NotText));
    assert_eq!(parse(&vec![b'x'; MAX_FILE_BYTES + 1]), Err(TooLong));
    let long = format!("Name=x\nExec=x\nComment={}", "x".repeat(MAX_LINE_BYTES));
    assert_eq!(entry(&long), Err(LongLine(5)));
    assert_eq!(entry(&"#\n".repeat(MAX_LINES)), Err(ManyLines));
}

#[test]
fn any_bytes_are_survived() {
    // Pieces of valid files in any order: the parser answers, whatever they make together.
    let pieces: [&[u8]; 12] = [
        b"[Desktop Entry]",
        b"\n",
        b"Name",
        b"=",
        b"[",
        b"]",
        b"Exec",
        b"\"",
        b"\\",
        b"%",
        b"\xc3",
        b";",
    ];
    let mut seed = 1_u64;
    for _ in 0..20_000 {
        let mut bytes = b"[Desktop Entry]\nType=Application\nName=x\n".to_vec();
        for _ in 0..20 {
            seed = seed
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            bytes.extend(pieces[(seed >> 33) as usize % pieces.len()]);
        }
        let _ = parse(&bytes);
    }
}
