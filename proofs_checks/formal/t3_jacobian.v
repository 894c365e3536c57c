(** T3 from Jacobians: (1 - rho) ||I - J|| <= kappa on a ball makes G contract there, as T3 on a ball asks. *)

From Coq Require Import Reals Lra.
From Coquelicot Require Import Coquelicot.
From Fpjax Require Import space jacobian.
Open Scope R_scope.

Theorem t3_jacobian (V : NormedModule R_AbsRing) (ip : InnerProduct V) (D : V -> V) (J : V -> V -> V) (rho kappa r : R)
  (y_s ybar : V)
  (Hrho : 0 <= rho <= 1)
  (HJ : forall y, norm (y [-] ybar) <= r -> filterdiff D (locally y) (J y))
  (Hkappa : forall y v, norm (y [-] ybar) <= r -> (1 - rho) * norm (v [-] J y v) <= kappa * norm v) :
  let G := fun y => y_s [+] (1 - rho) [*] (y [-] D y) in
  forall u v, norm (u [-] ybar) <= r -> norm (v [-] ybar) <= r -> norm (G u [-] G v) <= kappa * norm (u [-] v).
Proof.
  intros G u v Hu Hv; unfold G.
  replace (y_s [+] (1 - rho) [*] (u [-] D u) [-] (y_s [+] (1 - rho) [*] (v [-] D v)))
    with ((1 - rho) [*] (u [-] D u) [-] (1 - rho) [*] (v [-] D v)) by vector.
  apply (jacobian_lipschitz (fun y => (1 - rho) [*] (y [-] D y)) (fun y h => (1 - rho) [*] (h [-] J y h)) ybar r kappa);
    [| |exact Hu|exact Hv].
  - intros y Hy.
    apply (filterdiff_comp' (fun y => y [-] D y) (fun z => (1 - rho) [*] z) y (fun h => h [-] J y h)
      (fun z => (1 - rho) [*] z)).
    + apply (filterdiff_minus_fct (fun y => y) D (fun h => h) (J y)); [apply filterdiff_id|now apply HJ].
    + apply filterdiff_linear; exact (@is_linear_scal_r R_AbsRing V (1 - rho) Rmult_comm).
  - intros y h Hy; rewrite norm_scal_eq, Rabs_pos_eq by lra; now apply Hkappa.
Qed.
