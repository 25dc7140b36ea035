// SPDX-License-Identifier: Apache-2.0

// Package tests3 starts a real S3 server for tests: versitygw over a temporary
// directory, on a free loopback port, with or without TLS.
//
// The program is the one that KBCLI_TEST_VERSITYGW names, else versitygw on the
// PATH, else it is built once, with go install, into kbcli-test/bin of the
// user's cache directory; processes that need it at the same time wait for one.
//
// A server is killed at the end of its test, and by the kernel if the test
// binary ends without that, which needs Linux. Programs that are no test call Up, and
// Stop. Starting one takes about a tenth of
// a second.
package tests3
