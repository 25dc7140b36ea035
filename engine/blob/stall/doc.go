// SPDX-License-Identifier: Apache-2.0

// Package stall ends requests over a network whose bytes have stopped moving, which TCP
// itself may notice only after many minutes, and gives bodies back to whom they belong. It is
// for the places that are reached by one.
package stall
