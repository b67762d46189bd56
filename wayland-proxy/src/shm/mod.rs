//! Pictures: the application's shared memory, the host's, and the one copy between them.

pub mod blobs;
pub mod damage;
pub mod pool;
pub mod surface;

/// How the pixels of a buffer lie in its memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Width in pixels.
    pub width: i32,
    /// Height in pixels.
    pub height: i32,
    /// Bytes from one row to the next.
    pub stride: i32,
    /// The `wl_shm.format`.
    pub format: u32,
    /// Bytes of one pixel.
    pub pixel_bytes: i32,
}

/// Bytes of one pixel of a `wl_shm.format`, `None` for those that are not relayed.
///
/// Only formats of one plane with whole bytes per pixel: their damage can be copied row by row.
pub fn pixel_bytes(format: u32) -> Option<i32> {
    const fn code(text: &[u8; 4]) -> u32 {
        u32::from_le_bytes(*text)
    }
    const R8: u32 = code(b"R8  ");
    const RG16: u32 = code(b"RG16");
    const BG16: u32 = code(b"BG16");
    const RG24: u32 = code(b"RG24");
    const BG24: u32 = code(b"BG24");
    const XB24: u32 = code(b"XB24");
    const AB24: u32 = code(b"AB24");
    const RX24: u32 = code(b"RX24");
    const RA24: u32 = code(b"RA24");
    const BX24: u32 = code(b"BX24");
    const BA24: u32 = code(b"BA24");
    const XR30: u32 = code(b"XR30");
    const AR30: u32 = code(b"AR30");
    const XB30: u32 = code(b"XB30");
    const AB30: u32 = code(b"AB30");
    const XR48: u32 = code(b"XR48");
    const AR48: u32 = code(b"AR48");
    const XB48: u32 = code(b"XB48");
    const AB48: u32 = code(b"AB48");
    const XR4H: u32 = code(b"XR4H");
    const AR4H: u32 = code(b"AR4H");
    const XB4H: u32 = code(b"XB4H");
    const AB4H: u32 = code(b"AB4H");
    match format {
        R8 => Some(1),
        RG16 | BG16 => Some(2),
        RG24 | BG24 => Some(3),
        // 0 and 1 are ARGB8888 and XRGB8888, which every compositor has.
        0 | 1 | XB24 | AB24 | RX24 | RA24 | BX24 | BA24 | XR30 | AR30 | XB30 | AB30 => Some(4),
        XR48 | AR48 | XB48 | AB48 | XR4H | AR4H | XB4H | AB4H => Some(8),
        _ => None,
    }
}
