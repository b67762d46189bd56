//! Random bytes: nothing may panic, hang, or touch another context.

use proptest::prelude::*;

use super::driver::*;
use crate::devices::virtio::gpu::cross_domain::command::Commands;

fn mixed_command() -> impl Strategy<Value = Vec<u8>> {
    let bytes = || proptest::collection::vec(any::<u8>(), 0..400);
    prop_oneof![
        bytes(),
        (any::<u8>(), bytes()).prop_map(|(number, body)| command(number % 14, &body)),
        (any::<u32>(), any::<u32>(), 0..5u32).prop_map(|(w, h, f)| {
            image_requirements(
                w % 20000,
                h % 20000,
                [b"XR24", b"R8  ", b"AB4H", b"NV12", b"    "][f as usize],
            )
        }),
        (
            proptest::collection::vec((0..12u32, 0..8u32), 0..28),
            bytes()
        )
            .prop_map(|(identifiers, data)| send(&identifiers, &data)),
        (0..8u32, any::<bool>(), bytes()).prop_map(|(pipe, end, data)| write(pipe, end, &data)),
        Just(init(1)),
        Just(POLL.to_vec()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn the_parser_takes_anything(commands in proptest::collection::vec(mixed_command(), 0..4)) {
        let bytes = commands.concat();
        let total = Commands::new(&bytes).count();
        prop_assert!(total <= bytes.len() / 8 + 1);
        let _ = Commands::check(&bytes);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn the_control_queue_takes_anything(
        requests in proptest::collection::vec(
            prop_oneof![
                (0x100..0x10eu32, 0..4u32, proptest::collection::vec(any::<u8>(), 0..80))
                    .prop_map(|(kind, context, body)| request(kind, context, Some(0), &body)),
                (0x200..0x20bu32, 0..4u32, proptest::collection::vec(0..3u8, 0..80))
                    .prop_map(|(kind, context, body)| request(kind, context, Some(0), &body)),
                (1..3u32, 0..4u8, mixed_command())
                    .prop_map(|(context, ring, commands)| submit(context, Some(ring), &commands)),
                (any::<u32>(), any::<u64>()).prop_map(|(resource, at)| map_blob(resource % 8, at)),
                proptest::collection::vec(any::<u8>(), 0..100),
            ],
            0..80,
        )
    ) {
        let mut machine = machine();
        let mut bystander = machine.connect(9);
        let _peer = machine.connect(1);
        machine.expect_ok(&create_context(2, 5));
        for request in &requests {
            let ticket = machine.ask(request);
            // Polls may wait; everything else is answered.
            let _ = machine.answer_within(ticket, std::time::Duration::from_millis(2));
        }
        prop_assert!(machine.faults.lock().unwrap().is_empty());
        machine.assert_works(9, &mut bystander);
    }
}
