//! The policy that comes with the program.

use bulkhead_policy::{Folder, Policy};

mod support;

const TABLE: &str = "
domain work     App        default=dvm running
domain personal App        default=dvm
domain vault    App
domain dvm      App        default=dvm makes
domain sys-tor  Service    tags=anon-vm default=dvm running

# The numbers are lines of default.policy.
case files: always asked, never to the host
qubes.Filecopy work ->                 = ask dvm personal sys-tor vault @dispvm:dvm (9)
qubes.Filecopy work -> personal        = ask dvm personal sys-tor vault @dispvm:dvm (9)
qubes.Filecopy work -> @dispvm         = ask dvm personal sys-tor vault @dispvm:dvm (9)
qubes.Filecopy work -> dom0            = deny NoRule

case opening: new disposables at once, others asked
qubes.OpenInVM work -> @dispvm         = allow @dispvm:dvm (12)
qubes.OpenInVM work -> personal        = ask dvm personal sys-tor vault @dispvm:dvm (13)
qubes.OpenInVM vault -> @dispvm        = deny NoDefaultDisposable (12)
qubes.OpenInVM work -> @dispvm:dvm     = ask dvm personal sys-tor vault @dispvm:dvm (13)
qubes.OpenInVM work -> dom0            = deny NoRule
qubes.OpenURL work -> @dispvm          = allow @dispvm:dvm (16)
qubes.OpenURL work ->                  = ask dvm personal sys-tor vault @dispvm:dvm (17)
qubes.OpenURL work -> dom0             = deny NoRule
qubes.StartApp+foot work -> @dispvm    = allow @dispvm:dvm (20)
qubes.StartApp+foot work -> personal   = ask dvm personal sys-tor vault @dispvm:dvm (21)

case the clipboard
qubes.ClipboardPaste work -> personal  = ask dvm personal sys-tor vault @dispvm:dvm (24)
qubes.ClipboardPaste work -> dom0      = deny NoRule

case what is dropped on another window
bulkhead.Drop+text work -> personal    = ask dvm personal sys-tor vault @dispvm:dvm (28)
bulkhead.Drop+image work -> dom0       = deny NoRule

case notifications go to the host and nowhere else
bulkhead.Notify work ->            = allow dom0 (31)
bulkhead.Notify work -> dom0       = allow dom0 (32)
bulkhead.Notify work -> personal   = deny NoRule

case time comes from the host, and not to domains that hide
qubes.GetDate work -> dom0             = allow dom0 (38)
qubes.GetDate work ->                  = allow dom0 (37)
qubes.GetDate work -> personal         = allow dom0 (37)
qubes.GetDate sys-tor -> dom0          = deny Policy quiet (36)
qubes.GetDate sys-tor -> personal      = deny Policy quiet (36)
qubes.GetDate sys-tor ->               = deny Policy quiet (36)
qubes.GetRandomizedTime sys-tor -> dom0 = allow dom0 (40)
qubes.GetRandomizedTime sys-tor ->     = allow dom0 (39)

case pictures are decoded in new disposables and nowhere else
bulkhead.DecodePicture work -> @dispvm    = allow @dispvm:dvm (44)
bulkhead.DecodePicture vault -> @dispvm   = deny NoDefaultDisposable (44)
bulkhead.DecodePicture work -> personal   = deny NoRule

case everything else is denied
qubes.VMShell work -> @dispvm          = deny NoRule
qubes.VMExec+ls work -> personal       = deny NoRule
qubes.ConnectTCP+22 work -> personal   = deny NoRule
bulkhead.ConnectTcp+22 work -> personal = deny NoRule
bulkhead.ConnectTcp+22 work ->         = deny NoRule
admin.vm.List work -> dom0             = deny NoRule
";

#[test]
fn what_it_says() {
    let policy = Policy::load(&[Folder::built_in()]).unwrap();
    assert_eq!(policy.warnings(), []);
    support::run(TABLE, Some(&policy));
}

#[test]
fn a_users_rule_comes_before_it_and_a_users_file_of_its_name_replaces_it() {
    let before = Folder::in_memory([("30-user.policy", "qubes.Filecopy * work @anyvm deny")]);
    let policy = Policy::load(&[before, Folder::built_in()]).unwrap();
    assert_eq!(
        policy.rules().first().unwrap().place.to_string(),
        "30-user.policy:1"
    );
    assert!(policy.rules().len() > 10);

    let instead = Folder::in_memory([("90-default.policy", "* * * * deny")]);
    let policy = Policy::load(&[instead, Folder::built_in()]).unwrap();
    assert_eq!(policy.rules().len(), 1);
}
