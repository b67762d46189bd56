//! A picture that crosses: its pixels, and what its file says besides, which must stay behind.

/// What stands in a text of the picture's file.
pub(super) const TEXT: &[u8] = b"made by work on a day";
/// What stands after its pixels, where no viewer looks.
pub(super) const HIDDEN: &[u8] = b"where work lives";
/// Pixels of a side.
const SIDE: u32 = 24;

pub(super) fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// Of a small picture: red, green, blue.
pub(super) fn pixels() -> Vec<u8> {
    (0..SIDE * SIDE * 3)
        .map(|i| i.wrapping_mul(i).wrapping_add(i / 7).to_le_bytes()[0])
        .collect()
}

/// A file of these pixels, with more in it than those.
pub(super) fn file(pixels: &[u8]) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, SIDE, SIDE);
    encoder.set_color(png::ColorType::Rgb);
    let text = String::from_utf8_lossy(TEXT).into_owned();
    let written = encoder
        .add_text_chunk("Comment".into(), text)
        .and_then(|()| encoder.write_header())
        .and_then(|mut writer| {
            writer.write_image_data(pixels)?;
            writer.write_chunk(png::chunk::ChunkType(*b"wOrk"), HIDDEN)?;
            writer.finish()
        });
    written.map_err(|error| error.to_string())?;
    Ok(bytes)
}

/// The pixels of such a picture.
pub(super) fn decode(file: &[u8]) -> Result<Vec<u8>, String> {
    let decoder = png::Decoder::new(std::io::Cursor::new(file));
    let mut reader = decoder.read_info().map_err(|error| error.to_string())?;
    let info = reader.info();
    if (info.size(), info.color_type) != ((SIDE, SIDE), png::ColorType::Rgb) {
        return Err(format!("a picture of another kind: {:?}", info.size()));
    }
    let size = reader.output_buffer_size().unwrap_or_default();
    let mut pixels = vec![0; size];
    let frame = reader.next_frame(&mut pixels);
    frame.map(|_| pixels).map_err(|error| error.to_string())
}
