/// Messages that carry secrets: their `Debug` is written by hand, in src/redacted.rs.
const SECRET: [&str; 12] = [
    "AddDeviceResponse",
    "AddGatewayResponse",
    "AddSessionResponse",
    "AddUserRequest",
    "AddUserResponse",
    "DeviceInvite",
    "EnrollRequest",
    "EnrolmentLink",
    "Peer",
    "RecoveryCodes",
    "ResetUserRequest",
    "ResetUserResponse",
];

fn main() -> std::io::Result<()> {
    tonic_prost_build::configure()
        .skip_debug(SECRET.map(|message| format!(".portcullis.v1.{message}")))
        .compile_protos(
            &[
                "portcullis/v1/gateway.proto",
                "portcullis/v1/admin.proto",
                "portcullis/v1/ssh.proto",
            ],
            &["."],
        )
}
