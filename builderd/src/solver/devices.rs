//! Which devices of the machine a step gets.

use proto::pb;

use super::Job;
use crate::executor::cdi::{self, Device, Given};
use crate::ops::OpError;

impl Job {
    /// What a step needs for the devices it asks for, if this build may use them.
    pub(super) fn devices(&self, op: &pb::ExecOp) -> Result<Given, OpError> {
        let known = self.solver().executor().devices();
        let granted = self.entitlements();
        let (mut by_alias, mut by_name) = (Vec::new(), Vec::new());
        for wanted in &op.cdi_devices {
            match granted.devices.get(&wanted.name) {
                Some(Some(name)) => by_alias.push(pb::CdiDevice {
                    name: name.clone(),
                    optional: wanted.optional,
                }),
                _ => by_name.push(wanted.clone()),
            }
        }
        let mut devices = known.find(&by_alias)?;
        let named = known.find(&by_name)?;
        let mut allowed: Vec<Device> = Vec::new();
        for name in granted.devices.keys() {
            let device = pb::CdiDevice {
                name: name.clone(),
                optional: true,
            };
            allowed.extend(known.find(&[device])?);
        }
        let may = |device: &Device| {
            granted.all_devices
                || device.auto_allow
                || allowed.iter().any(|allowed| allowed.name == device.name)
        };
        let forbidden: Vec<&str> = named
            .iter()
            .filter(|device| !may(device))
            .map(|device| device.name.as_str())
            .collect();
        if !forbidden.is_empty() {
            return Err(OpError::ForbiddenDevices(forbidden.join(", ")));
        }
        devices.extend(named);
        Ok(cdi::give(&devices)?)
    }
}
