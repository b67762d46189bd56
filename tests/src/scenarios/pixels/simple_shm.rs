//! What `weston-simple-shm` draws at any time.

use crate::e2e::picture::Picture;

/// The white rim, in pixels.
const RIM: i32 = 20;
/// One step of each of its three ramps: one more in each colour, which are counters of different
/// speed. It is odd, so that steps and colours belong to each other one by one.
const STEP: u32 = 0x08_04_01;
/// `STEP` times this is 1, in 24 bits.
const STEPS_OF_ONE: u32 = inverse(STEP);
const COLOURS: u32 = 0xff_ff_ff;

/// Newton's method doubles the right bits each time; an odd number is its own inverse in three.
const fn inverse(odd: u32) -> u32 {
    let mut inverse = odd;
    let mut round = 0;
    while round < 4 {
        inverse = inverse.wrapping_mul(2u32.wrapping_sub(odd.wrapping_mul(inverse)));
        round += 1;
    }
    inverse & COLOURS
}

/// Whether each pixel is what one frame has there.
///
/// Outside of a ring a ramp runs to the right, 1 step in 16 ms; in the ring another one downwards, a
/// step in 32 ms; inside of it a third one outwards, a step in 64 ms. All begin at the same time, so one pixel
/// tells it.
pub(super) fn is_a_frame(picture: &Picture) -> Result<(), String> {
    let (width, height) = (picture.width.cast_signed(), picture.height.cast_signed());
    let corner = number(picture.at(RIM, RIM)).wrapping_mul(STEPS_OF_ONE) & COLOURS;
    let time = corner.cast_signed() - RIM;
    let (middle_x, middle_y) = (RIM + (width - 2 * RIM) / 2, RIM + (height - 2 * RIM) / 2);
    let outer = middle_x.min(middle_y) - 8;
    let inner = outer - 32;
    for y in 0..height {
        for x in 0..width {
            let square = (x - middle_x).pow(2) + (y - middle_y).pow(2);
            let steps = if square < inner.pow(2) {
                square / 32 + time / 4
            } else if square < outer.pow(2) {
                y + time / 2
            } else {
                x + time
            };
            let in_rim = |at: i32, size: i32| at < RIM || at >= size - RIM;
            let expected = if in_rim(x, width) || in_rim(y, height) {
                COLOURS
            } else {
                STEP.wrapping_mul(steps.cast_unsigned()) & COLOURS
            };
            let shown = number(picture.at(x, y));
            if shown != expected {
                return Err(format!(
                    "the pixel at {x}, {y} is {shown:06x}; in the frame of {} ms it is {expected:06x}",
                    time * 16
                ));
            }
        }
    }
    Ok(())
}

fn number([red, green, blue]: [u8; 3]) -> u32 {
    u32::from_be_bytes([0, red, green, blue])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_and_colours_belong_to_each_other() {
        for steps in [0, 1, 2, 255, 3389, 70_000, COLOURS] {
            let colour = STEP.wrapping_mul(steps) & COLOURS;
            assert_eq!(colour.wrapping_mul(STEPS_OF_ONE) & COLOURS, steps);
        }
    }
}
