//! The appliance boots from its medium, says that it is up, and powers off when its button is pressed.

mod machine;

use rig::artifacts;
use rig::machine::{Machine, script};
use wire::spec::LinkDevice;

#[test]
fn the_appliance_comes_up_and_goes_down_in_order() {
    let mut machine = Machine::new(&script(LinkDevice::Serial, ""), None);
    machine.guestinfo = None;
    machine.iso = Some(artifacts::dist("appliance.iso"));
    let mut powered = machine.power_on();
    powered.wait_for_console("appliance-init: info life: up,");
    powered.press_power_button();
    powered.wait();
}
